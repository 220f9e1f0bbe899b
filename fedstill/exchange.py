"""Both halves of a round's exchange, without transport: bytes in, typed objects out.

The server asks each device about the round's proxy samples and sends along what the device's label cache lacks; the
device fills its cache, learns, and answers with its soft labels. Nothing here knows how bytes travel or models learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleBaseError, StaleCacheError
from fedstill.packet import (
    CONTRACT_VERSION,
    Context,
    Decoded,
    check,
    decode,
    decode_samples,
    encode,
    encode_samples,
    encoding_of,
)
from fedstill.soft_labels import Floats, Ints, SoftLabels, draw, soft_labels
from protos import soft_labels_pb2 as pb


@dataclass
class ServerExchange:
    """The server's half of all rounds.

    Attributes:
        context: what both sides of the run share.
        per_round: proxy samples that a round is about.
        rounds: rounds of the whole run.
        encoding: encoding of what goes down, a name of `fedstill.codecs`.
        class_encodings: encodings of what goes down to the device classes that have one of their own.
        entropy_coded: whether what goes down is coded adaptively.
        delta: whether packets refer to what the other side holds, both ways.
        device_classes: class of each device; those without are served in `encoding`.
        cache: the newest consensus, as the devices decode it that are served in `encoding`.
        class_caches: the same by each other encoding: what the devices hold that are served in it.
        previous: with `delta`, all those caches before the last consensus, by encoding.
        acknowledged: cache version of each device in the last finished round.
        bases: with `delta`, what each device's acknowledged packets said.
    """

    context: Context
    per_round: int
    rounds: int
    encoding: str = "float16"
    class_encodings: Mapping[str, str] = field(default_factory=dict)
    entropy_coded: bool = False
    delta: bool = False
    device_classes: dict[int, str] = field(default_factory=dict)
    cache: LabelCache = field(init=False)
    class_caches: dict[str, LabelCache] = field(init=False)
    previous: dict[str, LabelCache] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    bases: dict[int, Base] = field(default_factory=dict)
    _packets: dict[tuple[int, int, int, str], pb.Packet] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.cache = LabelCache.empty(self.context.proxy_size, self.context.classes)
        others = set(self.class_encodings.values()) - {self.encoding}
        self.class_caches = dict.fromkeys(sorted(others), self.cache)

    def ids(self, round_number: int) -> Ints:
        """Return the proxy samples of a round, ascending."""
        return draw(self.context.seed, round_number, self.context.proxy_size, self.per_round)

    def request(self, device: int, round_number: int) -> bytes:
        """Return the serialized request of a round for one device."""
        base = self.acknowledged.get(device, 0)
        request = pb.RoundRequest(
            version=CONTRACT_VERSION,
            run=self.context.seed,
            round=round_number,
            rounds=self.rounds,
            predict=encode_samples(self.context, self.ids(round_number), round_number),
            acknowledged=self.bases[device].version if device in self.bases else 0,
        )
        if self.cache.version > base:
            encoding = self.class_encodings.get(self.device_classes.get(device, ""), self.encoding)
            request.consensus.CopyFrom(self._packet(round_number, base, encoding))
        return request.SerializeToString(deterministic=True)

    def _cache(self, encoding: str) -> LabelCache:
        return self.cache if encoding == self.encoding else self.class_caches[encoding]

    def _packet(self, round_number: int, base: int, encoding: str) -> pb.Packet:
        """Return what a cache at version `base` lacks; devices that lack the same share one encoding of it."""
        cache = self._cache(encoding)
        key = (round_number, base, cache.version, encoding)
        if key not in self._packets:
            self._packets = {known: packet for known, packet in self._packets.items() if known[0] == round_number}
            before = self.previous.get(encoding)
            self._packets[key] = encode(
                self.context,
                cache.lacking(base),
                round_number=round_number,
                samples_round=cache.version - 1,
                encoding=encoding,
                base_version=base,
                cache_version=cache.version,
                entropy_coded=self.entropy_coded,
                base=_held(encoding, before) if before is not None and before.version == base > 0 else None,
            )
        return self._packets[key]

    def accept(self, device: int, round_number: int, content: bytes) -> SoftLabels:
        """Decode a device's answer and note the cache version that it holds.

        Raises:
            PacketError: the answer breaks a rule of `fedstill.packet`.
        """
        base = self.bases.get(device)
        try:
            answer = decode(self.context, content, round_number=round_number, ids=self.ids(round_number), base=base)
        except StaleBaseError:
            self.bases.pop(device, None)  # the next request asks for a full packet
            raise
        if answer.cache_version > self.cache.version:
            raise PacketError(f"device claims cache version {answer.cache_version}, newest is {self.cache.version}")
        self.acknowledged[device] = answer.cache_version
        if self.delta:
            self._keep(device, answer)
        return answer.labels

    def _keep(self, device: int, answer: Decoded) -> None:
        """Keep what a device has said; what extends something else than is held here can't be referred to."""
        base = self.bases.pop(device, None)
        extends = base is not None and (base.version, base.encoding) == (answer.base_version, answer.encoding)
        if extends or answer.base_version == 0:
            held = base if extends else None
            self.bases[device] = said(self.context, held, answer.labels, answer.encoding, answer.round_number)

    def publish(self, round_number: int, ids: Ints, labels: Floats) -> None:
        """Fill the cache with the consensus of a finished round, through the codec: both sides hold the same values.

        Args:
            round_number: the finished round, 0 for what the teacher knows before the first; the cache's version is one
                more.
            ids: samples that the consensus covers, ascending `[samples]`.
            labels: consensus `[samples, classes]`.
        """
        encodings = [self.encoding, *self.class_caches]
        if self.delta:
            self.previous = {encoding: self._cache(encoding) for encoding in encodings}
        for encoding in encodings:
            packet = encode(
                self.context,
                soft_labels(ids, labels),
                round_number=round_number,
                samples_round=round_number,
                encoding=encoding,
            )
            decoded = check(self.context, packet).labels
            filled = self._cache(encoding).filled(ids, decoded.probabilities, round_number + 1)
            if encoding == self.encoding:
                self.cache = filled
            else:
                self.class_caches[encoding] = filled


def _held(encoding: str, cache: LabelCache) -> Base:
    """Return what a delta of the consensus refers to: what the cache of its receiver holds."""
    return Base.of(encoding, cache.labels, cache.changed > 0, cache.version)


def said(context: Context, base: Base | None, labels: SoftLabels, encoding: str, round_number: int) -> Base:
    """Return what a device has said once its packet of a round is acknowledged: both sides keep it.

    Args:
        context: what both sides of the run share.
        base: what the packet extends; None: it is full, and all that was said before is forgotten.
        labels: the packet's soft labels.
        encoding: their encoding.
        round_number: the packet's round.
    """
    before = base if base is not None else Base.nothing(encoding, context.proxy_size, context.classes)
    return before.extended(labels, round_number)


@dataclass(frozen=True)
class RoundTask:
    """What a device has to do in a round.

    Attributes:
        round_number: the round, from 1.
        rounds: rounds of the whole run.
        cache: the device's label cache after this round's packet; what to digest.
        predict: proxy samples to predict, ascending `[samples]`.
        acknowledged: round of the device's last packet that a delta may extend; 0: none.
    """

    round_number: int
    rounds: int
    cache: LabelCache
    predict: Ints
    acknowledged: int = 0


def open_request(context: Context, cache: LabelCache, content: bytes) -> RoundTask:
    """Check a request and fill the device's cache.

    Args:
        context: what both sides of the run share.
        cache: the device's cache before the round.
        content: the serialized request.

    Raises:
        PacketError: the request or its packet breaks a rule.
        StaleCacheError: the packet extends a version that this device does not hold; it asks for a full one.
    """
    if len(content) > context.max_bytes:
        raise PacketError(f"request of {len(content)} bytes is over the limit of {context.max_bytes}")
    request = pb.RoundRequest()
    try:
        request.ParseFromString(content)
    except DecodeError as error:
        raise PacketError("request does not parse") from error
    if request.version != CONTRACT_VERSION:
        raise PacketError(f"contract version {request.version}, {CONTRACT_VERSION} expected")
    if request.run != context.seed:
        raise PacketError("request of another run")
    if not 1 <= request.round <= request.rounds:
        raise PacketError(f"round {request.round} of {request.rounds}")
    predict = decode_samples(context, request.predict)
    if request.HasField("consensus"):
        cache = cache.after(_consensus(context, cache, request))
    return RoundTask(request.round, request.rounds, cache, predict, request.acknowledged)


def _consensus(context: Context, cache: LabelCache, request: pb.RoundRequest) -> Decoded:
    packet = request.consensus
    base = _held(encoding_of(context, packet), cache) if packet.HasField("base_checksum") else None
    try:
        return check(context, packet, round_number=request.round, base=base)
    except StaleBaseError as error:
        # Everything from the start mends a cache of another version as well as one of other labels.
        raise StaleCacheError(0, packet.base_version) from error


def close_task(
    context: Context,
    task: RoundTask,
    labels: SoftLabels,
    encoding: str,
    *,
    entropy_coded: bool = False,
    base: Base | None = None,
) -> bytes:
    """Return the serialized answer of a device to a round's task.

    Args:
        context: what both sides of the run share.
        task: the round's task.
        labels: the device's soft labels about the asked samples.
        encoding: a name of `fedstill.codecs`.
        entropy_coded: whether they are coded adaptively.
        base: what this device has said up to round `task.acknowledged`, for a delta; None: a full packet.
    """
    packet = encode(
        context,
        labels,
        round_number=task.round_number,
        samples_round=task.round_number,
        encoding=encoding,
        cache_version=task.cache.version,
        entropy_coded=entropy_coded,
        base=base,
    )
    return packet.SerializeToString(deterministic=True)
