"""Online distillation: each device carries the teacher, and its student learns the device's own stream from it.

After Mullapudi, Chen, Zhang, Ramanan and Fatahalian 2019, "Online Model Distillation for Efficient Video Inference",
arXiv 1812.02699: a compact student is specialized to what one camera sees, with a teacher's answers about the live
stream as its only labels. Here the teacher answers once about each sample; its soft labels stay in a cache for as long
as the sample is in the device's window (`stream.window`), and the student learns all of them in each round. A device
downloads the teacher before its first round; nothing travels in rounds but a tick. There is no server model.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.serverapp import Grid
from torch import nn

from client.disk import Disk, Stored
from client.learner import work_of
from fedstill.errors import PacketError
from fedstill.files import write_atomic
from fedstill.fit import Fit
from fedstill.learning import State, build, fit, predict, restored, state_of
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.packet import CONTRACT_VERSION
from fedstill.rng import torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.settings import FitSettings
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task, load_task
from protos import baselines_pb2 as pb
from server.teacher import train_initial
from simulations.baselines import weights
from simulations.baselines.evaluation import evaluate
from simulations.baselines.half import Outcome, ServerHalf
from simulations.baselines.heads import parsed
from simulations.baselines.loop import rounds
from simulations.host import data_in
from simulations.progress import RunProgress
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import Shelf, kept_shelf
from simulations.stream import Arrived
from simulations.stream_device import prequential

HEAD = 64  # bytes that no honest tick reaches


def initial_teacher(scenario: Scenario, shelf: Shelf) -> State:
    """Return the scenario's teacher as it is before the first round."""
    assert scenario.teacher is not None
    labels = np.array(shelf.server.labels)
    return train_initial(scenario.task, scenario.teacher, shelf.server.images, labels, scenario.seed)


def publish_teacher(scenario: Scenario, shelf: Shelf) -> None:
    """Write the teacher as devices download it, unless it is there: what the server publishes is no round's message."""
    if not shelf.teacher_path.exists():
        state = initial_teacher(scenario, shelf)
        write_atomic(shelf.teacher_path, weights.encode(scenario.seed, weights.Weights(state, 0, 1, scenario.rounds)))


class Online(ServerHalf[bool]):
    """Sends a tick in each round, and learns nothing.

    Args:
        scenario: the run.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.models = {}

    def request(self, device: int, round_number: int) -> bytes:
        """Return a tick."""
        return _tick(self._scenario, round_number)

    def accept(self, device: int, round_number: int, content: bytes) -> bool:
        """Check a device's tick."""
        parsed(pb.Tick(), self._scenario.seed, content, HEAD, round_number)
        return True

    def refused(self, device: int, held_version: int) -> None:
        """Do nothing: a device holds nothing of the server's rounds."""

    def conclude(self, round_number: int, answers: Mapping[int, bool]) -> None:
        """Do nothing: the devices learn alone."""

    def stored(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take nothing back."""


def _tick(scenario: Scenario, round_number: int) -> bytes:
    tick = pb.Tick(version=CONTRACT_VERSION, run=scenario.seed, round=round_number, rounds=scenario.rounds)
    return tick.SerializeToString(deterministic=True)


def run(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run online distillation: the server's half."""
    publish_teacher(setup.scenario, shelf)
    return rounds(grid, Online(setup.scenario), setup, shelf, progress)


def answer(setup: Setup, number: int, request: bytes) -> DeviceAnswer:
    """Let the student learn what its stream has brought from the device's own teacher: the device's half."""
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    assert scenario.teacher is not None
    task = load_task(scenario.task)
    try:
        tick = parsed(pb.Tick(), scenario.seed, request, HEAD)
    except PacketError as error:
        return DeviceAnswer(b"", {}, str(error))
    disk = Disk(setup.device_states / f"device-{number:05d}", durable=False)
    stored = disk.load(tick.round, lambda state: state)
    if stored is not None and stored.round_number == tick.round:
        return stored.answer
    like = state_of(build(architecture(scenario.teacher.architecture), task, seed=0))
    try:
        state = weights.decode(scenario.seed, like, shelf.teacher_path.read_bytes()).state
    except (OSError, PacketError) as error:
        return DeviceAnswer(b"", {}, f"the teacher can't be read: {error}")
    teacher = restored(architecture(scenario.teacher.architecture), task, state)
    student, done = student_of(scenario, number, stored), list[Fit]()
    data, found = data_in(scenario, shelf, number, tick.round)
    before = prequential(student, found, task)
    teach = partial(learn, scenario, number, tick.round, student)
    if stored is None:  # the common view that every method of a scenario with a teacher begins with
        proxy = np.array(shelf.proxy)
        done.append(teach("digest", proxy, predict(teacher, proxy, task), scenario.device.first_digest))
    labels = _cached(teacher, found, stored, task)
    done.append(teach("revisit", data.images, labels, scenario.device.revisit))
    scores = evaluate(student, data, task, tick.round == tick.rounds)
    reply = DeviceAnswer(_tick(scenario, tick.round), {**scores, **before, **work_of(done)})
    kept = {"rows": torch.from_numpy(found.rows), "labels": torch.from_numpy(labels)}
    disk.save(Stored(tick.round, state_of(student), reply, kept))
    return reply


def student_of(scenario: Scenario, number: int, stored: Stored | None) -> nn.Module:
    """Return a device's student as the last round left it, or as it is before the first."""
    task = load_task(scenario.task)
    own = architecture(scenario.device_classes[scenario.class_of(number)].student)
    if stored is not None:
        return restored(own, task, stored.student)
    return build(own, task, torch_seed(scenario.seed, "device", number))


def _cached(teacher: nn.Module, found: Arrived, stored: Stored | None, task: Task) -> Floats:
    """Return the soft labels of what a device holds `[samples, classes]`: the teacher is asked about new ones alone."""
    kept: dict[int, Floats] = {}
    if stored is not None:
        kept = dict(zip(stored.more["rows"].tolist(), stored.more["labels"].numpy(), strict=True))
    new = np.array([row not in kept for row in found.rows.tolist()], dtype=np.bool_)
    kept |= dict(zip(found.rows[new].tolist(), predict(teacher, found.images[new], task), strict=True))
    return np.stack([kept[row] for row in found.rows.tolist()])


def learn(
    scenario: Scenario,
    number: int,
    round_number: int,
    student: nn.Module,
    purpose: str,
    images: Images,
    labels: Floats,
    settings: FitSettings,
) -> Fit:
    """Fit a device's student to soft labels, with the temperature of a digest, and return how.

    Args:
        scenario: the run.
        number: of the device.
        round_number: from 1.
        student: what learns, in place.
        purpose: `digest` or `revisit`, for the random stream.
        images: uint8 `[samples, channels, height, width]`.
        labels: their soft labels `[samples, classes]`.
        settings: how long and how fast.
    """
    wanted = scenario.device.temperature
    temperature = SCHEDULES[wanted.schedule](progress_of(round_number, scenario.rounds), wanted.start, wanted.end)
    how, loss = settings.of(len(labels)), partial(kd_from_probabilities, temperature=temperature)
    seed = torch_seed(scenario.seed, purpose, number, round_number)
    fit(student, images, torch.from_numpy(labels), load_task(scenario.task), how, loss, seed)
    return how
