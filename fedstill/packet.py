"""Packets: soft labels as bytes, and the checks that untrusted bytes must pass to become soft labels again.

Rules of `decode`, each refused with a reason:
* the packet is no larger than `Context.max_bytes`, parses, and its checksum holds;
* its contract version, run, round, classes, proxy set digest and size are the expected ones;
* its samples are known: a draw that the receiver can repeat or a bitmap of the proxy set's length;
* payload, abstentions, certainty, class prior and ages have exactly the size that follows from the above; a coded
  payload is smaller than a plain one, gives exactly the labels that follow from the above, and ends with the last;
* a delta refers to labels that the receiver holds: same encoding, version and checksum;
* probabilities are finite, not negative, and sum to one; logits are bounded and centred.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from fedstill.codecs import Codec, Codes, codec, largest_remainder
from fedstill.codecs.bits import Reader, Writer
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleBaseError
from fedstill.expiry import due
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels, draw
from protos import soft_labels_pb2 as pb

CONTRACT_VERSION = 1
_FIXED: dict[str, pb.Encoding] = {
    "float32": pb.PROBABILITY_FLOAT32,
    "float16": pb.PROBABILITY_FLOAT16,
    "logits16": pb.CENTRED_LOGITS_FLOAT16,
    "simplex8": pb.SIMPLEX_8BIT,
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
        return 4 * self.proxy_size * self.classes + 7 * self.proxy_size + self.classes + 4096


@dataclass(frozen=True)
class Agreed:
    """How a sender encodes its labels: another encoding may cost the reader a thousand times the work.

    Attributes:
        encoding: a name of `fedstill.codecs`.
        entropy_coded: whether they may be coded adaptively.
    """

    encoding: str
    entropy_coded: bool

    def check(self, encoding: str, entropy_coded: bool) -> None:
        """Check a packet's form before any of its labels are decoded.

        Raises:
            PacketError: it is another one.
        """
        if encoding != self.encoding:
            raise PacketError(f"labels in encoding {encoding}, {self.encoding} agreed")
        if entropy_coded and not self.entropy_coded:
            raise PacketError("labels are coded adaptively, which was not agreed")


@dataclass(frozen=True)
class Decoded:
    """A packet that passed all checks.

    Attributes:
        labels: what it says.
        round_number: the round that it belongs to.
        base_version: the cache version that it extends.
        cache_version: the version after it, or held by its sender.
        ages: how many versions before `cache_version` each label changed `[samples]`; None: all at `cache_version`.
    """

    labels: SoftLabels
    round_number: int
    base_version: int
    cache_version: int
    ages: Ints | None = None
    encoding: str = "float32"
    is_delta: bool = False


def _form(encoding: str) -> tuple[pb.Encoding, int]:
    """Return how a packet names an encoding: its kind, and its parameter."""
    if encoding in _FIXED:
        return _FIXED[encoding], 0
    kind = pb.SIMPLEX if encoding.startswith("simplex") else pb.TOP_K
    return kind, int(encoding.removeprefix("simplex").removeprefix("top"))


def encoding_of(context: Context, packet: pb.Packet) -> str:
    """Return the name of a packet's encoding.

    Raises:
        PacketError: there is none with that number and parameter for the run's classes.
    """
    names = {number: name for name, number in _FIXED.items()}
    if packet.encoding in names and packet.parameter == 0:
        return names[packet.encoding]
    if packet.encoding == pb.SIMPLEX and 1 <= packet.parameter <= 7:
        return f"simplex{packet.parameter}"
    if packet.encoding == pb.TOP_K and 1 <= packet.parameter < min(100, context.classes):
        return f"top{packet.parameter}"
    raise PacketError(f"unknown encoding {int(packet.encoding)} with parameter {packet.parameter}")


def _held(base: Base | None, own: Codec, ids: Ints) -> tuple[Codes, Bools]:
    """Return what a base holds of some samples `[samples, width]`, and where `[samples]`."""
    if base is None:
        return np.zeros((len(ids), own.width), dtype=own.kind), np.zeros(len(ids), dtype=np.bool_)
    return base.codes[ids], base.known[ids]


def _coded(own: Codec, codes: Codes, base: Base | None, ids: Ints) -> bytes:
    writer = Writer()
    own.code(writer, codes, *_held(base, own, ids))
    return writer.content()


def _decode_rows(context: Context, packet: pb.Packet, base: Base | None, ids: Ints) -> Floats:
    own = codec(encoding_of(context, packet), context.classes)
    if packet.entropy_coded:
        if len(packet.payload) >= own.plain_bytes(len(ids)):
            raise PacketError(f"coded payload of {len(packet.payload)} bytes is no smaller than a plain one")
        reader = Reader(packet.payload)
        codes = own.code(reader, np.zeros((len(ids), own.width), dtype=own.kind), *_held(base, own, ids))
        reader.finish()
    else:
        codes = own.unpack(packet.payload, len(ids))
    own.check(codes)
    return own.restore(codes)


def joined_draws(context: Context, named: pb.Samples.Draw) -> tuple[Ints, Ints]:
    """Return the proxy samples of consecutive rounds' draws, ascending, and how many draws ago each was drawn last.

    Args:
        context: what both sides share.
        named: the first round, how many samples it draws, and the number of rounds.
    """
    last = np.full(context.proxy_size, -1, dtype=np.int64)
    for place in range(named.rounds):
        number = named.round + place
        last[draw(context.seed, number, context.proxy_size, named.count, independent=named.independent)] = place
    ids = np.flatnonzero(last >= 0).astype(np.int64)
    return ids, named.rounds - 1 - last[ids]


def encode_samples(context: Context, ids: Ints, round_number: int) -> pb.Samples:
    """Describe proxy samples: as the draw of `round_number` when they are it, else as a bitmap."""
    if len(ids) == context.proxy_size:
        round_number = 1  # a draw of everything is the same in any round
    if len(ids) and round_number > 0:
        drawn = draw(context.seed, round_number, context.proxy_size, len(ids))
        if np.array_equal(drawn, ids):
            return pb.Samples(draw=pb.Samples.Draw(seed=context.seed, round=round_number, count=len(ids)))
    bits = np.zeros(context.proxy_size, dtype=np.bool_)
    bits[ids] = True
    return pb.Samples(bitmap=np.packbits(bits).tobytes())


def decode_samples(context: Context, samples: pb.Samples, changed: Ints | None = None) -> Ints:
    """Return the proxy samples that `samples` describes, ascending.

    Args:
        context: what both sides share.
        samples: a draw or a bitmap.
        changed: what the reader's cache tells of each label, for a draw that means only those due `[proxy]`.

    Raises:
        PacketError: another run's draw, an impossible count or round, a draw that needs a cache where none is, or a
            bitmap of the wrong length.
    """
    form = samples.WhichOneof("form")
    if form == "draw":
        if samples.draw.seed != context.seed:
            raise PacketError("samples are drawn from another run's seed")
        if not 0 < samples.draw.count <= context.proxy_size or samples.draw.round < 1:
            raise PacketError(f"impossible draw of {samples.draw.count} samples in round {samples.draw.round}")
        named = samples.draw
        if named.rounds > 1:
            if named.rounds * named.count > context.proxy_size:
                raise PacketError(f"{named.rounds} joined draws exceed the proxy set")
            return joined_draws(context, named)[0]
        drawn = draw(context.seed, named.round, context.proxy_size, named.count, independent=named.independent)
        if named.duration == 0:
            return drawn
        if changed is None:
            raise PacketError("samples depend on a cache")
        return drawn[due(changed[drawn], named.round, named.duration)]
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
    encoding: str,
    base_version: int = 0,
    cache_version: int = 0,
    samples: pb.Samples | None = None,
    ages: Ints | None = None,
    entropy_coded: bool = False,
    base: Base | None = None,
) -> pb.Packet:
    """Build the packet of `labels`, checksum included.

    Args:
        context: what both sides share.
        labels: what to send.
        round_number: the round that the packet belongs to.
        samples_round: the round whose draw the samples may be (a bitmap is sent when they are not).
        encoding: a name of `fedstill.codecs`.
        base_version: the cache version that this packet extends (down); `base` brings its own.
        cache_version: the cache version after it (down), or held by the device (up).
        samples: how the samples are named; None: as the draw of `samples_round` or as a bitmap.
        ages: how many versions before `cache_version` each label changed `[samples]`; None: all at `cache_version`.
        entropy_coded: whether to code the payload adaptively, where that makes it smaller.
        base: what the receiver holds, for a coded delta where that is smaller; None: everything in full.
    """
    present = labels.present
    own = codec(encoding, context.classes)
    codes = own.quantize(labels.probabilities[present])
    forms = [(own.pack(codes), False, False)]
    if entropy_coded:
        forms.append((_coded(own, codes, None, labels.ids[present]), True, False))
    if entropy_coded and base is not None:
        forms.append((_coded(own, codes, base, labels.ids[present]), True, True))
    payload, is_coded, is_delta = min(forms, key=lambda form: len(form[0]))
    kind, parameter = _form(encoding)
    packet = pb.Packet(
        version=CONTRACT_VERSION,
        run=context.seed,
        round=round_number,
        proxy_digest=context.proxy_digest,
        proxy_size=context.proxy_size,
        samples=encode_samples(context, labels.ids, samples_round) if samples is None else samples,
        classes=context.classes,
        encoding=kind,
        parameter=parameter,
        payload=payload,
        entropy_coded=is_coded,
        abstained=b"" if present.all() else np.packbits(~present).tobytes(),
        base_version=base_version,
        cache_version=cache_version,
        ages=[] if ages is None else ages.tolist(),
    )
    if base is not None:
        packet.base_version = base.version
    if base is not None and is_delta:
        packet.base_checksum = base.checksum(labels.ids[present])
    if labels.certainty is not None:
        packet.certainty = np.rint(labels.certainty[present] * 255).astype(np.uint8).tobytes()
    if labels.class_prior is not None:
        packet.class_prior = largest_remainder(labels.class_prior, 255).tobytes()
    packet.checksum = _checksum(packet)
    return packet


def decode(
    context: Context,
    content: bytes,
    *,
    round_number: int | None = None,
    ids: Ints | None = None,
    changed: Ints | None = None,
    base: Base | None = None,
    agreed: Agreed | None = None,
) -> Decoded:
    """Parse and check a serialized packet.

    Args:
        context: what both sides share.
        content: untrusted bytes.
        round_number: the round that the packet must belong to; None: any.
        ids: the samples that an answer must be about; None: any of the proxy set.
        changed: what the reader's cache tells of each label, for samples named by what is due `[proxy]`.
        base: what this side holds, should it be a delta.
        agreed: how its labels have to be encoded; None: anyhow.

    Raises:
        PacketError: any rule of this module is broken.
        StaleBaseError: it is a delta to something else than `base`.
    """
    if len(content) > context.max_bytes:
        raise PacketError(f"packet of {len(content)} bytes is over the limit of {context.max_bytes}")
    packet = pb.Packet()
    try:
        packet.ParseFromString(content)
    except DecodeError as error:
        raise PacketError("packet does not parse") from error
    packet.DiscardUnknownFields()
    if packet.SerializeToString(deterministic=True) != content:
        raise PacketError("packet says more than its fields do, or not in their one form")
    return check(context, packet, round_number=round_number, ids=ids, changed=changed, base=base, agreed=agreed)


def check(
    context: Context,
    packet: pb.Packet,
    *,
    round_number: int | None = None,
    ids: Ints | None = None,
    changed: Ints | None = None,
    base: Base | None = None,
    agreed: Agreed | None = None,
) -> Decoded:
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
    if agreed is not None:
        agreed.check(encoding_of(context, packet), packet.entropy_coded)
    if ids is not None and packet.samples.draw.rounds > 1:
        raise PacketError("packet joins draws where one was asked for")
    if ids is not None and packet.ages:
        raise PacketError("an answer tells no ages")
    named = decode_samples(context, packet.samples, changed)
    if ids is not None:
        if not np.array_equal(named, ids):
            raise PacketError("packet is about other samples than were asked for")
        named = ids  # one array for all of a round's packets, not one for each
    if packet.abstained:
        present = ~_bits(packet.abstained, len(named), "abstention bitmap")
    else:
        present = np.ones(len(named), dtype=np.bool_)
    is_delta = packet.HasField("base_checksum")
    if is_delta:
        _check_base(context, packet, base, named[present])
    rows = _decode_rows(context, packet, base if is_delta else None, named[present])
    probabilities = np.zeros((len(named), context.classes), dtype=np.float32)
    probabilities[present] = rows
    labels = SoftLabels(
        named, probabilities, present, _certainty(packet.certainty, present), _class_prior(packet.class_prior, context)
    )
    ages = _ages(context, packet, len(named))
    encoding = encoding_of(context, packet)
    return Decoded(labels, packet.round, packet.base_version, packet.cache_version, ages, encoding, is_delta=is_delta)


def _check_base(context: Context, packet: pb.Packet, base: Base | None, ids: Ints) -> None:
    if base is None or base.encoding != encoding_of(context, packet) or base.version != packet.base_version:
        raise StaleBaseError(f"delta to version {packet.base_version} of labels that are not held here")
    if base.checksum(ids) != packet.base_checksum:
        raise StaleBaseError("delta to other labels than are held here")


def _certainty(content: bytes, present: Bools) -> Floats | None:
    if not content:
        return None
    if len(content) != present.sum():
        raise PacketError(f"certainty has {len(content)} bytes, {int(present.sum())} expected")
    certainty = np.zeros(len(present), dtype=np.float32)
    certainty[present] = np.frombuffer(content, dtype=np.uint8) / np.float32(255)
    return certainty


def _ages(context: Context, packet: pb.Packet, samples: int) -> Ints | None:
    named = packet.samples.draw
    if named.rounds > 1:
        if packet.ages or not packet.base_version <= named.round == packet.cache_version - named.rounds:
            raise PacketError("joined draws that do not lead from the version extended to the one given")
        return joined_draws(context, named)[1]
    if not packet.ages:
        return None
    ages = np.array(packet.ages, dtype=np.int64)
    if len(ages) != samples:
        raise PacketError(f"{len(ages)} ages, {samples} expected")
    if ages.max() >= packet.cache_version - packet.base_version:
        raise PacketError(f"a label older than the version {packet.base_version} that the packet extends")
    return ages


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
