from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedstill.errors import PacketError
from fedstill.learning import build, fit, generator, state_of
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.tasks import load_task
from server import students
from simulations.baselines.fedavg import FedAvg, answer
from simulations.baselines.weights import Weights, decode, encode
from simulations.methods import load_method
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def setup(small_fedavg: Scenario, tmp_path: Path) -> Setup:
    setup = Setup(small_fedavg, tmp_path, 1, "local")
    open_shelf(setup.assets, small_fedavg)
    return setup


@pytest.fixture
def small_fedavg(small_options: list[str]) -> Scenario:
    return load_method("digits", "fedavg", small_options[1::2])


def test_one_round_equals_a_hand_computation(setup: Setup) -> None:
    scenario, shelf = setup.scenario, Shelf(setup.assets)
    half = FedAvg(scenario)
    answers = {}
    for device in range(scenario.devices):
        reply = answer(setup, device, half.request(device, 1))
        answers[device] = half.accept(device, 1, reply.packet)
    half.conclude(1, answers)

    task, student = load_task(scenario.task), scenario.device_classes["mcu"].student
    trained, counts = [], []
    for device in range(scenario.devices):
        model = build(architecture(student), task, torch_seed(scenario.seed, "student", student))
        data = shelf.of_device(device)
        seed = torch_seed(scenario.seed, "revisit", device, 1)
        how = scenario.device.revisit.of(len(data.labels))
        fit(model, data.images, torch.from_numpy(data.labels), task, how, F.cross_entropy, seed)
        trained.append(state_of(model))
        counts.append(len(data.labels))
    assert len(set(counts)) > 1
    for name, tensor in half.models[student].items():
        if tensor.is_floating_point():
            expected = np.average([state[name].numpy() for state in trained], axis=0, weights=counts)
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_batch_norms_running_statistics_are_averaged_too(setup: Setup) -> None:
    half = FedAvg(setup.scenario)
    (student,) = half.models
    before = students.initial(setup.scenario.task, student, 0)
    half.conclude(1, {0: half.accept(0, 1, answer(setup, 0, half.request(0, 1)).packet)})
    names = [name for name in before if name.endswith("running_var")]
    assert names
    assert not any(torch.equal(before[name], half.models[student][name]) for name in names)


def test_devices_that_do_not_answer_have_no_say(setup: Setup) -> None:
    half = FedAvg(setup.scenario)
    only = half.accept(2, 1, answer(setup, 2, half.request(2, 1)).packet)
    half.conclude(1, {2: only})
    (state,) = half.models.values()
    assert all(torch.equal(state[name], only.state[name]) for name in state)


def test_the_same_request_gets_the_same_answer(setup: Setup) -> None:
    request = FedAvg(setup.scenario).request(1, 1)
    assert answer(setup, 1, request) == answer(setup, 1, request)


def test_a_bad_request_is_refused_and_weights_of_no_sample_are_too(setup: Setup) -> None:
    half = FedAvg(setup.scenario)
    assert "can't be parsed" in answer(setup, 0, b"\xff\xff").refusal
    (state,) = half.models.values()
    with pytest.raises(PacketError, match="no sample"):
        half.accept(0, 1, encode(0, Weights(state, 0, 1, 2)))


def test_exactly_t_local_steps_of_a_batch_can_be_asked_for(setup: Setup) -> None:
    """Plain SGD for T steps at every device, however many samples it has, equals a loop written by hand."""
    changes = {"epochs": 0.0, "min_steps": 20, "batch": 8, "momentum": 0.0, "weight_decay": 0.0, "decay": "constant"}
    changes |= {"learning_rate": 0.01, "augment": "none"}
    revisit = setup.scenario.device.revisit.model_copy(update=changes)
    assert {revisit.of(count).steps for count in (5, 31, 100_000)} == {20}
    device = setup.scenario.device.model_copy(update={"revisit": revisit})
    own = Setup(setup.scenario.model_copy(update={"device": device}), setup.out, 1, "local")
    half = FedAvg(own.scenario)
    (student,) = half.models
    found = decode(0, half.models[student], answer(own, 0, half.request(0, 1)).packet).state

    task, data = load_task(own.scenario.task), Shelf(own.assets).of_device(0)
    model = build(architecture(student), task, seed=0)
    model.load_state_dict(half.models[student])
    model.train()
    rng = generator(torch_seed(0, "revisit", 0, 1))
    pixels = (torch.from_numpy(np.array(data.images)).float() / 255 - task.mean[0]) / task.std[0]
    steps = 0
    while steps < 20:
        order = torch.randperm(len(pixels), generator=rng)
        for rows in [order[start : start + 8] for start in range(0, len(order), 8)]:
            if len(rows) < 4 or steps == 20:
                continue
            model.zero_grad()
            F.cross_entropy(model(pixels[rows]), torch.from_numpy(data.labels)[rows]).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(0.01 * parameter.grad)
            steps += 1
    for name, tensor in state_of(model).items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(found[name].numpy(), tensor.numpy(), rtol=1e-4, atol=1e-5)
