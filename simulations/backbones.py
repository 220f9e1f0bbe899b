"""The backbones of a run: what devices without torch stand on, made before the first round.

A backbone is what a torch device is after it has digested the teacher's labels for the first time: a student of its
class, fitted to the initial teacher's soft labels about the proxy set. It depends on the scenario alone, so a run that
was prepared on one machine and is resumed there has the same one.
"""

from functools import partial

import numpy as np
import torch

from fedstill.files import write_atomic
from fedstill.learning import build, fit, predict, restored
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.soft_labels import Floats
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server import teacher
from simulations.scenario import Scenario
from simulations.shelf import Shelf


def make_backbones(scenario: Scenario, shelf: Shelf) -> None:
    """Write the backbone of each device class whose devices have no torch, unless it is there.

    Raises:
        ExportError: a student can't be one.
    """
    names = [name for name, kind in scenario.device_classes.items() if kind.learner != "torch"]
    missing = [name for name in names if not shelf.backbone_path(name).exists()]
    if not missing:
        return
    prepare_torch()
    labels, made = _teacher_labels(scenario, shelf), dict[str, bytes]()
    for name in missing:
        student = scenario.device_classes[name].student
        if student not in made:
            made[student] = _backbone(scenario, shelf, student, labels)
        write_atomic(shelf.backbone_path(name), made[student])


def _teacher_labels(scenario: Scenario, shelf: Shelf) -> Floats:
    settings, task = scenario.teacher, load_task(scenario.task)
    assert settings is not None  # the scenario was checked
    state = teacher.train_initial(
        scenario.task, settings, shelf.server.images, np.array(shelf.server.labels), scenario.seed
    )
    return predict(restored(architecture(settings.architecture), task, state), shelf.proxy, task)


def _backbone(scenario: Scenario, shelf: Shelf, student: str, labels: Floats) -> bytes:
    from server.release.backbone import backbone  # exporter and quantizer, which runs of torch devices begin without

    task, device = load_task(scenario.task), scenario.device
    model = build(architecture(student), task, torch_seed(scenario.seed, "backbone", student))
    loss = partial(kd_from_probabilities, temperature=device.temperature.start)
    seed = torch_seed(scenario.seed, "digest backbone", student)
    fit(model, shelf.proxy, torch.from_numpy(labels), task, device.first_digest.of(len(labels)), loss, seed)
    count = min(scenario.students.calibration_samples, len(shelf.proxy))
    return backbone(model, task, np.array(shelf.proxy[:count]))
