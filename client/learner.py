"""What a learner is, whatever it learns with, and what all kinds of it do alike. Imports no torch.

`torch`     trains the whole student (`client.device`)
`head`      trains a softmax head on the features of a backbone, in NumPy (`client.light`)
`observer`  trains nothing: it answers with its model and measures it (`client.light`)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import RoundTask, open_request, said
from fedstill.fit import Fit
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import Ints, SoftLabels
from fedstill.tasks import Images

_last: tuple[object, RoundTask | DeviceAnswer] | None = None
ROUND_TEST_SAMPLES = 1000  # a full evaluation in each round would cost as much as the training


@dataclass(frozen=True)
class DeviceData:
    """What a device learns from and is measured on.

    Attributes:
        images: private samples, which never leave the device.
        labels: their classes `[samples]`.
        proxy: the shared unlabelled samples.
        test_images: what the device evaluates on; empty: it does not.
        test_labels: their classes.
    """

    images: Images
    labels: Ints
    proxy: Images
    test_images: Images
    test_labels: Ints


class Learner(Protocol):
    """A device of a run."""

    @property
    def number(self) -> int:
        """Its number in the run."""

    @property
    def context(self) -> packet.Context:
        """What all packets of the run share."""

    @property
    def uplink(self) -> str:
        """Encoding of its soft labels."""

    def answer(self, request: bytes) -> DeviceAnswer:
        """Do a round's work, or return what was answered when this round was asked before.

        A request that breaks a rule is refused with the reason; the device keeps what it has.
        """


def opened(context: packet.Context, held: LabelCache | None, request: bytes) -> RoundTask | DeviceAnswer:
    """Return what a request asks for, or the refusal that tells why it can't be done.

    Args:
        context: what all packets of the run share.
        held: the device's label cache before the round; None: it has none yet.
        request: the serialized request.
    """
    cache = LabelCache.empty(context.proxy_size, context.classes) if held is None else held
    try:
        return open_request(context, cache, request)
    except StaleCacheError as error:
        return DeviceAnswer(b"", {}, str(error), error.held)
    except PacketError as error:
        return DeviceAnswer(b"", {}, str(error), cache.version)


def opened_alike(context: packet.Context, held: LabelCache | None, request: bytes) -> RoundTask | DeviceAnswer:
    """Do what `opened` does, once for all virtual devices of a process that hold the same and are asked alike."""
    global _last
    key = (context, None if held is None else (held.version, held.checksum), request)
    if _last is None or _last[0] != key:
        _last = (key, opened(context, held, request))
    return _last[1]


def tested_now(task: RoundTask, images: Images) -> Images:
    """Return which test samples a round measures: a fixed part of them, all in the last round."""
    part: Images = images if task.round_number == task.rounds else images[:ROUND_TEST_SAMPLES]
    return part


def acknowledged(bases: tuple[Base, ...], task: RoundTask) -> Base | None:
    """Return what was said up to the packet that a delta may extend; None: a full packet is due."""
    return next((base for base in bases if base.version == task.acknowledged), None)


def bases_after(
    context: packet.Context, base: Base | None, labels: SoftLabels, uplink: str, round_number: int
) -> tuple[Base, ...]:
    """Return what a later request may call acknowledged: this packet, or, should it get lost, what it extends."""
    latest = said(context, base, labels, uplink, round_number)
    return (latest,) if base is None else (base, latest)


def work_of(fits: Iterable[Fit], batches: int = 1) -> dict[str, float]:
    """Return the optimizer steps of fits and the samples in them, with so many batches in a step."""
    done = list(fits)
    return {
        "steps": float(sum(how.steps for how in done)),
        "samples": float(batches * sum(how.steps * how.batch for how in done)),
    }
