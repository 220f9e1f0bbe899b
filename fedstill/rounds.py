"""What a round brought in, and what it cost on the wire."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from typing_extensions import TypeVar

from fedstill.soft_labels import Ints, SoftLabels

A = TypeVar("A", default=SoftLabels)
ABSENT = "absent: "
"""How the reason begins for which a device that took no part in a round is missing from it."""

PREQUENTIAL = "prequential"
"""Metric of a device on a stream: its accuracy on a round's new samples before it learned from them."""


@dataclass(frozen=True)
class DeviceAnswer:
    """A device's answer to a request.

    Attributes:
        packet: serialized soft labels; empty: the request was refused.
        metrics: what the device measured of itself.
        refusal: why the request was refused.
        held_version: cache version that the device holds; told on refusal, so that the server sends what is missing.
        absence: why the device takes no part in this round, which it has not looked at; then all else is empty.
    """

    packet: bytes
    metrics: Mapping[str, float]
    refusal: str = ""
    held_version: int = 0
    absence: str = ""


@dataclass
class Traffic:
    """Bytes counted on what was really serialized.

    Attributes:
        uplink: bytes of all packets that each device sent.
        downlink: bytes of all requests that each device got, a shared consensus counted once per device.
        messages: Flower messages, both ways: rounds, questions for a host's devices, and errors.
        envelope_bytes: serialized size of those messages minus the packet bytes really in them.
    """

    uplink: dict[int, int] = field(default_factory=dict)
    downlink: dict[int, int] = field(default_factory=dict)
    messages: int = 0
    envelope_bytes: int = 0

    def add_uplink(self, device: int, size: int) -> None:
        """Count a packet that a device sent."""
        self.uplink[device] = self.uplink.get(device, 0) + size

    def add_downlink(self, device: int, size: int) -> None:
        """Count a request that a device got."""
        self.downlink[device] = self.downlink.get(device, 0) + size

    def add_message(self, size: int, packets: int) -> None:
        """Count a message of `size` bytes that carries `packets` bytes of packets."""
        self.messages += 1
        self.envelope_bytes += size - packets


class Owner(NamedTuple):
    """Who may speak for a device, as what.

    Attributes:
        node: id of its host.
        device_class: its class.
    """

    node: int
    device_class: str


@dataclass(frozen=True)
class Reopened(Generic[A]):
    """An earlier round that late answers reached: its samples are decided about anew, or now for the first time.

    Attributes:
        round_number: the round that asked.
        ids: its samples that no later round decides about, ascending `[samples]`.
        votes: all answers about them by device, ascending, those that came before included.
        new: devices whose answers were not decided with before.
    """

    round_number: int
    ids: Ints
    votes: Mapping[int, A]
    new: frozenset[int]


@dataclass(frozen=True)
class RoundReplies(Generic[A]):
    """All usable answers of a round, and why the others are not.

    Attributes:
        round_number: from 1.
        ids: proxy samples that the round is about, ascending `[samples]`.
        votes: soft labels, or what else a method's devices answer, by device, in ascending order of devices.
        metrics: what each device measured, by device.
        refused: why a device's answer is not used, by device.
        device_classes: class of every known device.
        reopened: where answers may be late, the earlier rounds that they reached, ascending.
        answered: where answers may be late, devices that answered this round or an earlier one; None: those in `votes`.
    """

    round_number: int
    ids: Ints
    votes: Mapping[int, A]
    metrics: Mapping[int, Mapping[str, float]]
    refused: Mapping[int, str]
    device_classes: Mapping[int, str]
    reopened: tuple[Reopened[A], ...] = ()
    answered: int | None = None

    @property
    def answers(self) -> int:
        """How many devices have a usable answer in this round."""
        return len(self.votes) if self.answered is None else self.answered


def absent(refused: Mapping[str, str]) -> int:
    """Return how many of the devices whose answers a round does not use took no part in it by themselves."""
    return sum(reason.startswith(ABSENT) for reason in refused.values())


def work_by_class(replies: RoundReplies[A], classes: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the optimizer steps that a round's devices took and the samples in them, summed by device class.

    Args:
        replies: their metrics `steps` and `samples` count; a device without them took none.
        classes: all device classes.
    """
    names = list(classes)
    work = {key: dict.fromkeys(names, 0) for key in ("device_steps", "device_samples")}
    for device, metrics in replies.metrics.items():
        name = replies.device_classes[device]
        for key, metric in (("device_steps", "steps"), ("device_samples", "samples")):
            work[key][name] = work[key].get(name, 0) + int(metrics.get(metric, 0))
    return work


def prequential_by_class(replies: RoundReplies[A], classes: Iterable[str]) -> dict[str, dict[str, float | None]]:
    """Return the devices' mean prequential accuracy by device class, for a row; nothing where there is no stream."""
    found: dict[str, list[float]] = {name: [] for name in classes}
    for device, metrics in replies.metrics.items():
        if PREQUENTIAL in metrics:
            found.setdefault(replies.device_classes[device], []).append(metrics[PREQUENTIAL])
    if not any(found.values()):
        return {}
    return {"prequential_accuracy": {name: sum(own) / len(own) if own else None for name, own in found.items()}}
