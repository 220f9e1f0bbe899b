"""Soft labels by class, as packets, and their leave-one-out mean: what FD exchanges."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedstill.errors import PacketError
from fedstill.packet import CONTRACT_VERSION
from fedstill.soft_labels import Bools, Floats, Ints
from protos import baselines_pb2 as pb
from simulations.baselines.heads import parsed

_FLOAT32 = np.dtype("<f4")
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelVectors:
    """A soft label per class.

    Attributes:
        vectors: rows on the simplex, zero where absent `[classes, classes]`.
        present: classes that have one `[classes]`.
    """

    vectors: Floats
    present: Bools


@dataclass(frozen=True)
class Decoded:
    """A packet that passed all checks."""

    labels: LabelVectors
    round_number: int
    rounds: int


def by_label(probabilities: Floats, labels: np.ndarray, classes: int) -> LabelVectors:
    """Return F_k,l: the mean softmax over a device's samples of each label l; absent where it has none.

    Args:
        probabilities: `[samples, classes]`.
        labels: true classes `[samples]`.
        classes: number of classes.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, classes), dtype=np.float64)
    np.add.at(sums, labels, probabilities)
    present: Bools = counts > 0
    vectors = np.divide(sums, counts[:, None], out=np.zeros_like(sums), where=present[:, None])
    return LabelVectors(vectors.astype(np.float32), present)


@dataclass(frozen=True)
class LabelSums:
    """The devices' vectors summed by label.

    Attributes:
        sums: sum_j F_j,l `[classes, classes]`.
        counts: M_l, how many devices hold label l `[classes]`.
    """

    sums: npt.NDArray[np.float64]
    counts: Ints

    @staticmethod
    def of(answers: Iterable[LabelVectors], classes: int) -> "LabelSums":
        """Sum the vectors of all devices that answered."""
        sums, counts = np.zeros((classes, classes)), np.zeros(classes, dtype=np.int64)
        for labels in answers:
            sums += labels.vectors
            counts += labels.present
        return LabelSums(sums, counts)

    def without(self, own: LabelVectors | None) -> LabelVectors:
        """Return (sum_j F_j,l - F_k,l) / (M_l - 1): for each label the mean of the other devices that hold it.

        Devices without a label have no say about it, and a label that nobody else holds has no vector.

        Args:
            own: F_k; None: device k did not answer, and gets the mean of all.
        """
        counts = self.counts if own is None else self.counts - own.present
        sums = self.sums if own is None else np.where(counts[:, None] > 0, self.sums - own.vectors, 0)
        present: Bools = counts > 0
        vectors = np.divide(sums, counts[:, None], out=np.zeros_like(sums), where=present[:, None])
        return LabelVectors(np.clip(vectors, 0, 1).astype(np.float32), present)


def encode(seed: int, labels: LabelVectors, round_number: int, rounds: int) -> bytes:
    """Return the serialized packet."""
    packet = pb.LabelVectors(
        version=CONTRACT_VERSION,
        run=seed,
        round=round_number,
        rounds=rounds,
        classes=len(labels.present),
        present=np.packbits(labels.present).tobytes(),
        vectors=labels.vectors[labels.present].astype(_FLOAT32).tobytes(),
    )
    return packet.SerializeToString(deterministic=True)


def decode(seed: int, classes: int, content: bytes, round_number: int | None = None) -> Decoded:
    """Parse and check a serialized packet.

    Args:
        seed: run seed.
        classes: number of classes.
        content: untrusted bytes.
        round_number: the round that it must belong to; None: any.

    Raises:
        PacketError: it does not parse, is of another contract, run, round or size, or a vector is no distribution.
    """
    limit = _FLOAT32.itemsize * classes * classes + classes + 64
    packet = parsed(pb.LabelVectors(), seed, content, limit, round_number, what="label vectors")
    if packet.classes != classes or len(packet.present) != (classes + 7) // 8:
        raise PacketError(f"label vectors of {packet.classes} classes, {classes} expected")
    bits = np.unpackbits(np.frombuffer(packet.present, dtype=np.uint8)).astype(np.bool_)
    if bits[classes:].any():
        raise PacketError("label vectors mark classes beyond the last one")
    present = bits[:classes]
    expected = _FLOAT32.itemsize * int(present.sum()) * classes
    if len(packet.vectors) != expected:
        raise PacketError(f"label vectors have {len(packet.vectors)} bytes, {expected} expected")
    rows = np.frombuffer(packet.vectors, dtype=_FLOAT32).reshape(-1, classes)
    if not np.isfinite(rows).all() or (rows < 0).any() or (np.abs(rows.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise PacketError("a label vector is no distribution over the classes")
    vectors = np.zeros((classes, classes), dtype=np.float32)
    vectors[present] = rows
    return Decoded(LabelVectors(vectors, present), packet.round, packet.rounds)
