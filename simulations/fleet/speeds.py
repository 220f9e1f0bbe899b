"""How fast the devices of a run's classes compute its students, and whether they have the memory for it."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from fedstill.errors import ConfigError
from fedstill.learning import build, parameters
from fedstill.models import architecture
from fedstill.tasks import Task
from server.delivery.summary import Found
from simulations.fleet.clock import Speeds
from simulations.fleet.settings import SLOWEST, FleetClassSettings

TRAINING_MACS = 3
"""Forward passes that a sample in an optimizer step costs: the backward pass takes about two."""
FLOPS_PER_MAC = 2
TRAINED_COPIES = 3  # weights, gradients and the optimizer's state
FLOAT_BYTES = 4
CHANGED_BYTES = 8  # of a label in the cache, beside its probabilities


class Kind(Protocol):
    """A device class of a scenario."""

    @property
    def student(self) -> str:
        """Architecture of its student."""


def macs(student: str, task: Task) -> int:
    """Return the multiply-accumulates of one sample's forward pass: those of convolutions and matrix products."""
    model = build(architecture(student), task, seed=0).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *task.input_shape))
    return int(counter.get_total_flops()) // FLOPS_PER_MAC


def speeds_of(
    fleet: Mapping[str, FleetClassSettings], kinds: Mapping[str, Kind], task: Task, told: Mapping[str, Found]
) -> dict[str, Speeds]:
    """Return the speeds of a run's device classes.

    Args:
        fleet: the fleet's classes.
        kinds: the run's.
        task: what is learned.
        told: what each class's own devices told about the student, where they told anything.

    Raises:
        ConfigError: a class's speed is to come from its devices, and none of them told it; or it is too slow.
    """
    found = {name: _speeds(name, fleet[name], kind.student, task, told.get(name)) for name, kind in kinds.items()}
    for name, speeds in found.items():
        if min(speeds.train, speeds.predict) < SLOWEST:
            raise ConfigError(
                f"fleet.classes.{name}: {speeds.train:.3g} samples trained and {speeds.predict:.3g} predicted per"
                f" second with {kinds[name].student}; a device has to reach {SLOWEST} of both"
            )
    return found


def _speeds(name: str, kind: FleetClassSettings, student: str, task: Task, told: Found | None) -> Speeds:
    own = kind.benchmark
    if own is not None and (
        (_of_any_folder(own.student), own.input_shape, own.classes)
        != (_of_any_folder(student), task.input_shape, task.classes)
    ):
        raise ConfigError(
            f"fleet.classes.{name}.benchmark: it is of {_words(own.student, own.input_shape, own.classes)}, the run has"
            f" {_words(student, task.input_shape, task.classes)}; measure that with `fedstill client speed`"
        )
    forward = kind.macs_per_second / max(1, macs(student, task)) if kind.macs_per_second is not None else 0.0
    train = kind.train_samples_per_second or (own.train_samples_per_second if own else forward / TRAINING_MACS)
    if kind.predict_from_telemetry:
        if told is None or told.latency_ms_p50 is None:
            raise ConfigError(
                f"fleet.classes.{name}: no device of this class has told how fast it predicts with {student};"
                " set predict_samples_per_second"
            )
        source = f"telemetry: {told.devices} devices, version {told.version}"
        return Speeds(train, 1000 / told.latency_ms_p50, source)
    if kind.predict_samples_per_second is None and own is not None:
        return Speeds(train, own.predict_samples_per_second, f"benchmark: {own.machine}")
    return Speeds(train, kind.predict_samples_per_second or forward)


def _of_any_folder(student: str) -> str:
    """Return an architecture's name; of `file.py:object` without the folder, which is another one on the device."""
    return student.rpartition("/")[2] if ".py:" in student else student


def _words(student: str, shape: tuple[int, int, int], classes: int) -> str:
    return f"{student} on images of {'x'.join(map(str, shape))} and {classes} classes"


def memory_needed(student: str, task: Task, proxy_samples: int, batch: int) -> int:
    """Return bytes that a round takes at least: student, gradients and optimizer, label cache, and a batch of images.

    Activations, the runtime and the images on the device's disk are not in it.

    Args:
        student: architecture.
        task: what is learned.
        proxy_samples: size of the proxy set.
        batch: samples of the largest optimizer step.
    """
    model = build(architecture(student), task, seed=0)
    label = FLOAT_BYTES * task.classes + CHANGED_BYTES
    image = FLOAT_BYTES * int(torch.tensor(task.input_shape).prod())
    return FLOAT_BYTES * TRAINED_COPIES * parameters(model) + proxy_samples * label + batch * image


def check_memory(
    fleet: Mapping[str, FleetClassSettings], kinds: Mapping[str, Kind], task: Task, proxy_samples: int, batch: int
) -> None:
    """Make sure that every class has the memory for a round.

    Raises:
        ConfigError: one has not.
    """
    for name, kind in kinds.items():
        memory = fleet[name].memory_bytes
        needed = memory_needed(kind.student, task, proxy_samples, batch)
        if memory is not None and needed > memory:
            raise ConfigError(
                f"fleet.classes.{name}: a round with {kind.student} needs {needed} bytes at least, memory_bytes is"
                f" {memory}"
            )
