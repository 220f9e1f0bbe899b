"""FD: devices exchange a mean soft label per class and train towards the other devices' mean of their sample's class.

Jeong, Oh, Kim, Park, Bennis and Kim 2018, "Communication-Efficient On-Device Machine Learning: Federated Distillation
and Augmentation under Non-IID Private Data", arXiv 1811.11479, algorithm 1. F_k,l: mean softmax of device k over its
samples of label l; gamma: weight of the distillation. There is no server model: what comes out are the devices' own
students.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flwr.serverapp import Grid
from torch import Tensor

from client.disk import Disk, Stored
from client.learner import work_of
from fedstill.errors import PacketError
from fedstill.learning import build, fit, predict, state_of
from fedstill.losses import soft_cross_entropy
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import load_task
from simulations.baselines.evaluation import evaluate
from simulations.baselines.half import Outcome, ServerHalf
from simulations.baselines.label_vectors import LabelSums, LabelVectors, by_label, decode, encode
from simulations.baselines.loop import rounds
from simulations.host import data_in
from simulations.progress import RunProgress
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import Shelf, kept_shelf
from simulations.stream_device import prequential


class FD(ServerHalf[LabelVectors]):
    """Hands each device the mean of the others' vectors.

    Args:
        scenario: the run.
        classes: number of classes.
    """

    def __init__(self, scenario: Scenario, classes: int) -> None:
        self._scenario = scenario
        self._classes = classes
        self._answers: dict[int, LabelVectors] = {}
        self._sums = LabelSums.of([], classes)
        self.models = {}

    def request(self, device: int, round_number: int) -> bytes:
        """Return the leave-one-out means of the last round, none before the first."""
        labels = self._sums.without(self._answers.get(device))
        return encode(self._scenario.seed, labels, round_number, self._scenario.rounds)

    def accept(self, device: int, round_number: int, content: bytes) -> LabelVectors:
        """Decode F_k."""
        return decode(self._scenario.seed, self._classes, content, round_number).labels

    def conclude(self, round_number: int, answers: Mapping[int, LabelVectors]) -> None:
        """Keep the round's vectors for the next requests."""
        self._answers = dict(answers)
        self._sums = LabelSums.of(self._answers.values(), self._classes)

    def stored(self) -> dict[str, Any]:
        """Return the vectors."""
        return {
            str(device): {"vectors": torch.from_numpy(found.vectors), "present": torch.from_numpy(found.present)}
            for device, found in self._answers.items()
        }

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take back the vectors."""
        self.conclude(
            0,
            {
                int(device): LabelVectors(found["vectors"].numpy(), found["present"].numpy())
                for device, found in stored.items()
            },
        )


def run(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run FD: the server's half."""
    classes = load_task(setup.scenario.task).classes
    return rounds(grid, FD(setup.scenario, classes), setup, shelf, progress)


def loss_of(received: LabelVectors, gamma: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the device's loss: phi(F, y) + gamma * phi(F, F_y), phi the cross-entropy, on logits and labels.

    A sample whose class has no vector has the first part alone.

    Args:
        received: the others' mean vector of each class.
        gamma: weight of the distillation.
    """
    vectors, present = torch.from_numpy(received.vectors), torch.from_numpy(received.present)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value = F.cross_entropy(logits, labels)
        known = present[labels]
        if not bool(known.any()):
            return value
        share = known.float().mean()
        return value + gamma * share * soft_cross_entropy(logits[known], vectors[labels[known]])

    return loss


def answer(setup: Setup, number: int, request: bytes) -> DeviceAnswer:
    """Train on private data with what is received about its classes, and send one's own vectors: the device's half."""
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    task = load_task(scenario.task)
    try:
        received = decode(scenario.seed, task.classes, request)
    except PacketError as error:
        return DeviceAnswer(b"", {}, str(error))
    disk = Disk(setup.device_states / f"device-{number:05d}", durable=False)  # as the virtual devices of the product
    stored = disk.load(received.round_number, lambda state: state)
    if stored is not None and stored.round_number == received.round_number:
        return stored.answer
    student = scenario.device_classes[scenario.class_of(number)].student
    model = build(architecture(student), task, torch_seed(scenario.seed, "device", number))
    if stored is not None:
        model.load_state_dict(stored.student)
    data, found = data_in(scenario, shelf, number, received.round_number)
    before = prequential(model, found, task)
    labels = np.array(data.labels)
    how = scenario.device.revisit.of(len(labels))
    seed = torch_seed(scenario.seed, "revisit", number, received.round_number)
    loss = loss_of(received.labels, scenario.method.gamma)
    fit(model, data.images, torch.from_numpy(labels), task, how, loss, seed)
    own = by_label(predict(model, data.images, task), labels, task.classes)
    content = encode(scenario.seed, own, received.round_number, received.rounds)
    scores = evaluate(model, data, task, received.round_number == received.rounds)
    reply = DeviceAnswer(content, {**scores, **before, **work_of([how])})
    disk.save(Stored(received.round_number, state_of(model), reply))
    return reply
