"""Packets: soft labels as bytes, and the checks that untrusted bytes must pass to become soft labels again.

Rules of `decode`, each refused with a reason:
* the packet is no larger than `Expected.max_bytes`, parses, and its checksum holds;
* its contract version, run, round, classes, proxy set digest and size are the expected ones;
* its samples are known: a draw that the receiver can repeat or a bitmap of the proxy set's length;
* payload, abstentions, certainty and class prior have exactly the size that follows from the above;
* probabilities are finite, not negative, and sum to one.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from fedstill.errors import PacketError
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels, draw
from protos import soft_labels_pb2 as pb

CONTRACT_VERSION = 1
ENCODINGS: dict[str, pb.Encoding] = {
    "float32": pb.PROBABILITY_FLOAT32,
    "float16": pb.PROBABILITY_FLOAT16,
    "simplex8": pb.SIMPLEX_8BIT,
}
_SUM_TOLERANCE = {pb.PROBABILITY_FLOAT32: 1e-3, pb.PROBABILITY_FLOAT16: 2e-3}
_FLOAT_TYPES: dict[pb.Encoding, np.dtype[Any]] = {
    pb.PROBABILITY_FLOAT32: np.dtype("<f4"),
    pb.PROBABILITY_FLOAT16: np.dtype("<f2"),
}


@dataclass(frozen=True)
class Context:
    """What sender and receiver of a run's packets share.

    Attributes:
        seed: run seed; the draws follow from it.
        proxy_digest: first 8 bytes of the proxy set's SHA-256.
        proxy_size: samples in the proxy set.
        classes: width of a soft label.
    """

    seed: int
    proxy_digest: bytes
    proxy_size: int
    classes: int

    @property
    def max_bytes(self) -> int:
        """Size in bytes that no honest packet of this run reaches: float32 for every proxy sample, and headers."""
        return 4 * self.proxy_size * self.classes + 2 * self.proxy_size + self.classes + 4096


@dataclass(frozen=True)
class Decoded:
    """A packet that passed all checks."""

    labels: SoftLabels
    round_number: int
    base_version: int
    cache_version: int


def largest_remainder(shares: Floats, total: int) -> npt.NDArray[np.uint8]:
    """Round rows of shares on the simplex to integers that sum to `total` exactly (largest remainder, stable ties).

    Args:
        shares: rows that sum to one `[..., classes]`.
        total: the sum to reach, at most 255.
    """
    scaled = shares.astype(np.float64) * total
    floor = np.floor(scaled)
    missing = (total - floor.sum(axis=-1, keepdims=True)).astype(np.int64)
    order = np.argsort(-(scaled - floor), axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(shares.shape[-1]), order.shape), axis=-1)
    result: npt.NDArray[np.uint8] = (floor + (ranks < missing)).astype(np.uint8)
    return result


def _encode_rows(rows: Floats, encoding: pb.Encoding) -> bytes:
    if encoding == pb.SIMPLEX_8BIT:
        return largest_remainder(rows, 255).tobytes()
    content: bytes = rows.astype(_FLOAT_TYPES[encoding]).tobytes()
    return content


def _decode_rows(payload: bytes, encoding: pb.Encoding, rows: int, classes: int) -> Floats:
    if encoding == pb.SIMPLEX_8BIT:
        if len(payload) != rows * classes:
            raise PacketError(f"payload has {len(payload)} bytes, {rows * classes} expected")
        integers = np.frombuffer(payload, dtype=np.uint8).reshape(rows, classes)
        if (integers.sum(axis=1, dtype=np.int64) != 255).any():
            raise PacketError("quantized probabilities do not sum to 255")
        return (integers / np.float32(255)).astype(np.float32)
    if encoding not in _FLOAT_TYPES:
        raise PacketError(f"unknown encoding {int(encoding)}")
    kind = _FLOAT_TYPES[encoding]
    if len(payload) != rows * classes * kind.itemsize:
        raise PacketError(f"payload has {len(payload)} bytes, {rows * classes * kind.itemsize} expected")
    values: Floats = np.frombuffer(payload, dtype=kind).reshape(rows, classes).astype(np.float32)
    if not np.isfinite(values).all():
        raise PacketError("probabilities are not finite")
    if (values < 0).any():
        raise PacketError("probabilities are negative")
    if (np.abs(values.sum(axis=1) - 1) > _SUM_TOLERANCE[encoding]).any():
        raise PacketError("probabilities do not sum to one")
    return values  # as they were sent: encoding them again gives the same bytes


def joined_draws(context: Context, first_round: int, rounds: int, count: int) -> Ints:
    """Return the proxy samples of consecutive rounds' draws of `count` each, ascending."""
    draws = [draw(context.seed, first_round + place, context.proxy_size, count) for place in range(rounds)]
    return np.unique(np.concatenate(draws)).astype(np.int64)


def encode_samples(
    context: Context, ids: Ints, round_number: int, *, rounds: int = 1, per_round: int = 0
) -> pb.Samples:
    """Describe proxy samples: as the draw of `round_number` when they are it, else as a bitmap.

    Args:
        context: what both sides share.
        ids: proxy samples, ascending `[samples]`.
        round_number: the round whose draw they may be.
        rounds: more than 1: they are the draws of so many consecutive rounds from that one on.
        per_round: samples of each of these draws; not used for one.
    """
    if rounds > 1:
        form = pb.Samples.Draw(seed=context.seed, round=round_number, count=per_round, rounds=rounds)
        return pb.Samples(draw=form)
    if len(ids) == context.proxy_size:
        round_number = 1  # a draw of everything is the same in any round
    if len(ids) and round_number > 0:
        drawn = draw(context.seed, round_number, context.proxy_size, len(ids))
        if np.array_equal(drawn, ids):
            return pb.Samples(draw=pb.Samples.Draw(seed=context.seed, round=round_number, count=len(ids)))
    bits = np.zeros(context.proxy_size, dtype=np.bool_)
    bits[ids] = True
    return pb.Samples(bitmap=np.packbits(bits).tobytes())


def decode_samples(context: Context, samples: pb.Samples) -> Ints:
    """Return the proxy samples that `samples` describes, ascending.

    Raises:
        PacketError: another run's draw, an impossible count or round, or a bitmap of the wrong length.
    """
    form = samples.WhichOneof("form")
    if form == "draw":
        if samples.draw.seed != context.seed:
            raise PacketError("samples are drawn from another run's seed")
        if not 0 < samples.draw.count <= context.proxy_size or samples.draw.round < 1:
            raise PacketError(f"impossible draw of {samples.draw.count} samples in round {samples.draw.round}")
        if samples.draw.rounds > 1:
            if samples.draw.rounds * samples.draw.count > context.proxy_size:
                raise PacketError(f"{samples.draw.rounds} joined draws exceed the proxy set")
            return joined_draws(context, samples.draw.round, samples.draw.rounds, samples.draw.count)
        return draw(context.seed, samples.draw.round, context.proxy_size, samples.draw.count)
    if form == "bitmap":
        bits = _bits(samples.bitmap, context.proxy_size, "sample bitmap")
        return np.flatnonzero(bits).astype(np.int64)
    raise PacketError("packet names no samples")


def _bits(content: bytes, count: int, what: str) -> Bools:
    if len(content) != (count + 7) // 8:
        raise PacketError(f"{what} has {len(content)} bytes, {(count + 7) // 8} expected")
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    if bits[count:].any():
        raise PacketError(f"{what} marks samples beyond the last one")
    return bits[:count].astype(np.bool_)


def encode(
    context: Context,
    labels: SoftLabels,
    *,
    round_number: int,
    samples_round: int,
    samples_rounds: int = 1,
    samples_per_round: int = 0,
    encoding: str,
    base_version: int = 0,
    cache_version: int = 0,
) -> pb.Packet:
    """Build the packet of `labels`, checksum included.

    Args:
        context: what both sides share.
        labels: what to send.
        round_number: the round that the packet belongs to.
        samples_round: the round whose draw the samples may be (a bitmap is sent when they are not).
        samples_rounds: more than 1: the samples are the draws of so many consecutive rounds.
        samples_per_round: samples of each of these draws.
        encoding: a key of `ENCODINGS`.
        base_version: the cache version that this packet extends.
        cache_version: the cache version after it (down), or held by the device (up).
    """
    present = labels.present
    packet = pb.Packet(
        version=CONTRACT_VERSION,
        run=context.seed,
        round=round_number,
        proxy_digest=context.proxy_digest,
        proxy_size=context.proxy_size,
        samples=encode_samples(context, labels.ids, samples_round, rounds=samples_rounds, per_round=samples_per_round),
        classes=context.classes,
        encoding=ENCODINGS[encoding],
        payload=_encode_rows(labels.probabilities[present], ENCODINGS[encoding]),
        abstained=b"" if present.all() else np.packbits(~present).tobytes(),
        base_version=base_version,
        cache_version=cache_version,
    )
    if labels.certainty is not None:
        packet.certainty = np.rint(labels.certainty[present] * 255).astype(np.uint8).tobytes()
    if labels.class_prior is not None:
        packet.class_prior = largest_remainder(labels.class_prior, 255).tobytes()
    packet.checksum = _checksum(packet)
    return packet


def decode(context: Context, content: bytes, *, round_number: int | None = None, ids: Ints | None = None) -> Decoded:
    """Parse and check a serialized packet.

    Args:
        context: what both sides share.
        content: untrusted bytes.
        round_number: the round that the packet must belong to; None: any.
        ids: the samples that it must be about; None: any of the proxy set.

    Raises:
        PacketError: any rule of this module is broken.
    """
    if len(content) > context.max_bytes:
        raise PacketError(f"packet of {len(content)} bytes is over the limit of {context.max_bytes}")
    packet = pb.Packet()
    try:
        packet.ParseFromString(content)
    except DecodeError as error:
        raise PacketError("packet does not parse") from error
    return check(context, packet, round_number=round_number, ids=ids)


def check(context: Context, packet: pb.Packet, *, round_number: int | None = None, ids: Ints | None = None) -> Decoded:
    """Check a parsed packet like `decode` does."""
    if packet.checksum != _checksum(packet):
        raise PacketError("checksum does not hold")
    if packet.version != CONTRACT_VERSION:
        raise PacketError(f"contract version {packet.version}, {CONTRACT_VERSION} expected")
    if packet.run != context.seed:
        raise PacketError("packet of another run")
    if round_number is not None and packet.round != round_number:
        raise PacketError(f"packet of round {packet.round}, {round_number} expected")
    if packet.proxy_digest != context.proxy_digest or packet.proxy_size != context.proxy_size:
        raise PacketError("packet about another proxy set")
    if packet.classes != context.classes:
        raise PacketError(f"{packet.classes} classes, {context.classes} expected")
    named = decode_samples(context, packet.samples)
    if ids is not None and not np.array_equal(named, ids):
        raise PacketError("packet is about other samples than were asked for")
    if packet.abstained:
        present = ~_bits(packet.abstained, len(named), "abstention bitmap")
    else:
        present = np.ones(len(named), dtype=np.bool_)
    answered = int(present.sum())
    probabilities = np.zeros((len(named), context.classes), dtype=np.float32)
    probabilities[present] = _decode_rows(packet.payload, packet.encoding, answered, context.classes)
    labels = SoftLabels(
        named, probabilities, present, _certainty(packet.certainty, present), _class_prior(packet.class_prior, context)
    )
    return Decoded(labels, packet.round, packet.base_version, packet.cache_version)


def _certainty(content: bytes, present: Bools) -> Floats | None:
    if not content:
        return None
    if len(content) != present.sum():
        raise PacketError(f"certainty has {len(content)} bytes, {int(present.sum())} expected")
    certainty = np.zeros(len(present), dtype=np.float32)
    certainty[present] = np.frombuffer(content, dtype=np.uint8) / np.float32(255)
    return certainty


def _class_prior(content: bytes, context: Context) -> Floats | None:
    if not content:
        return None
    counts = np.frombuffer(content, dtype=np.uint8)
    if len(counts) != context.classes or counts.sum(dtype=np.int64) != 255:
        raise PacketError("class prior is not a distribution over the classes")
    return (counts / np.float32(255)).astype(np.float32)


def _checksum(packet: pb.Packet) -> int:
    """CRC-32 of the packet's deterministic serialization with its checksum at zero."""
    kept = packet.checksum
    packet.checksum = 0
    try:
        return zlib.crc32(packet.SerializeToString(deterministic=True))
    finally:
        packet.checksum = kept


def round_of(request: bytes) -> int:
    """Return the round that a serialized request names, 0 when it does not parse."""
    message = pb.RoundRequest()
    try:
        message.ParseFromString(request)
    except DecodeError:
        return 0
    return message.round
