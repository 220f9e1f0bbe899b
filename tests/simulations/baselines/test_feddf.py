from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedstill.learning import build, predict
from fedstill.models import architecture
from fedstill.soft_labels import Floats
from fedstill.tasks import load_task
from simulations.baselines.fedavg import answer
from simulations.baselines.feddf import FedDF, ensemble, proxy_logits
from simulations.baselines.weights import average
from simulations.methods import load_method
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def setup(small_options: list[str], tmp_path: Path) -> Setup:
    scenario = load_method("digits", "feddf", [*small_options[1::2], "students.distil.min_steps=200"])
    setup = Setup(scenario, tmp_path, 1, "local")
    open_shelf(setup.assets, scenario)
    return setup


def test_the_ensemble_is_the_softmax_of_the_mean_of_logits_and_not_the_mean_of_softmax() -> None:
    members = [np.array([[3.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)]
    np.testing.assert_allclose(ensemble(members), F.softmax(torch.tensor([[1.5, 0.5]]), dim=1).numpy(), rtol=1e-6)


def test_each_architecture_is_averaged_alone_and_learns_from_all_models(setup: Setup) -> None:
    scenario, shelf = setup.scenario, Shelf(setup.assets)
    task = load_task(scenario.task)
    half = FedDF(setup, shelf)
    assert len(half.models) == 4
    answers = {
        device: half.accept(device, 1, answer(setup, device, half.request(device, 1)).packet) for device in range(4)
    }
    classes = scenario.classes_of_devices()
    student_of = {device: scenario.device_classes[classes[device]].student for device in answers}
    logits = [proxy_logits(scenario.task, student_of[device], answers[device].state, shelf) for device in answers]
    teacher = ensemble(logits)
    averages = {student_of[device]: average([answers[device]]) for device in answers}
    half.conclude(1, answers)

    def distance(state: dict[str, torch.Tensor], student: str) -> float:
        """KL(ensemble || student) on the proxy set."""
        model = build(architecture(student), task, seed=0)
        model.load_state_dict(state)
        found: Floats = predict(model, shelf.proxy, task)
        return float((teacher * (np.log(teacher) - np.log(found))).sum(axis=1).mean())

    for student, state in half.models.items():
        assert distance(state, student) < 0.5 * distance(averages[student], student)
