"""Both halves of a round's exchange, without transport: bytes in, typed objects out.

The server asks each device about the round's proxy samples and sends along what the device's label cache lacks; the
device fills its cache, learns, and answers with its soft labels. Which of the drawn samples are due (`fedstill.expiry`)
never travels: a request, a consensus and an answer name the draw, and each side derives the rest from its own cache.
Nothing here knows how bytes travel or models learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from google.protobuf.message import DecodeError

from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleBaseError, StaleCacheError
from fedstill.expiry import INITIAL, due
from fedstill.packet import (
    CONTRACT_VERSION,
    Agreed,
    Context,
    Decoded,
    check,
    decode,
    decode_samples,
    encode,
    encoding_of,
    joined_draws,
)
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels, draw, soft_labels
from protos import soft_labels_pb2 as pb


@dataclass
class ServerExchange:
    """The server's half of all rounds.

    Attributes:
        context: what both sides of the run share.
        per_round: proxy samples that a round draws.
        rounds: rounds of the whole run.
        encoding: encoding of what goes down, a name of `fedstill.codecs`.
        duration: D, the age in rounds at which a consensus is asked for again; 0: it is at each draw.
        independent: whether each round draws anew, instead of walking through a permutation.
        class_encodings: encodings of what goes down to the device classes that have one of their own.
        uplink: encoding of what comes up; empty: any, which a hostile device can make dear to read.
        class_uplinks: encodings of what comes up from the device classes that have one of their own.
        entropy_coded: whether what goes down is coded adaptively, and what comes up may be.
        delta: whether packets refer to what the other side holds, both ways.
        priors: whether devices tell their shares of classes; where they don't, one that does is not heard on them.
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
    duration: int = 0
    independent: bool = False
    class_encodings: Mapping[str, str] = field(default_factory=dict)
    uplink: str = ""
    class_uplinks: Mapping[str, str] = field(default_factory=dict)
    entropy_coded: bool = False
    delta: bool = False
    priors: bool = True
    device_classes: dict[int, str] = field(default_factory=dict)
    cache: LabelCache = field(init=False)
    class_caches: dict[str, LabelCache] = field(init=False)
    previous: dict[str, LabelCache] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    bases: dict[int, Base] = field(default_factory=dict)
    _packets: dict[tuple[int, int, int, str], pb.Packet] = field(default_factory=dict, init=False)
    _requests: dict[tuple[int, int, int, int, str], bytes] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.cache = LabelCache.empty(self.context.proxy_size, self.context.classes)
        others = set(self.class_encodings.values()) - {self.encoding}
        self.class_caches = dict.fromkeys(sorted(others), self.cache)

    def ids(self, round_number: int) -> Ints:
        """Return the proxy samples that a round asks about, ascending: those of its draw that are due."""
        population, count = self.context.proxy_size, self.per_round
        drawn = draw(self.context.seed, round_number, population, count, independent=self.independent)
        changed = self.cache.changed[drawn]
        # Once the round is published, what it asked about is what changed at its version and what is due still.
        asked: Ints = drawn[(changed == round_number + 1) | due(changed, round_number, self.duration)]
        return asked

    def request(self, device: int, round_number: int) -> bytes:
        """Return the serialized request of a round for one device; devices that lack the same get the same object."""
        base, encoding = self.acknowledged.get(device, 0), self._encoding(device)
        acknowledged = self.bases[device].version if device in self.bases else 0
        key = (round_number, self.cache.version, base, acknowledged, encoding)
        if key not in self._requests:
            self._requests = {known: made for known, made in self._requests.items() if known[:2] == key[:2]}
            self._requests[key] = self._request(round_number, base, acknowledged, encoding)
        return self._requests[key]

    def _request(self, round_number: int, base: int, acknowledged: int, encoding: str) -> bytes:
        request = pb.RoundRequest(
            version=CONTRACT_VERSION,
            run=self.context.seed,
            round=round_number,
            rounds=self.rounds,
            predict=self._drawn(round_number),
            cache_checksum=self._cache(encoding).checksum,
            acknowledged=acknowledged,
        )
        if self.cache.version > base:
            request.consensus.CopyFrom(self._packet(round_number, base, encoding))
        return request.SerializeToString(deterministic=True)

    def _drawn(self, round_number: int, rounds: int = 0) -> pb.Samples:
        named = pb.Samples.Draw(
            seed=self.context.seed,
            round=round_number,
            count=self.per_round,
            independent=self.independent,
            duration=self.duration,
            rounds=rounds,
        )
        return pb.Samples(draw=named)

    def _encoding(self, device: int) -> str:
        return self.class_encodings.get(self.device_classes.get(device, ""), self.encoding)

    def _cache(self, encoding: str) -> LabelCache:
        return self.cache if encoding == self.encoding else self.class_caches[encoding]

    def _packet(self, round_number: int, base: int, encoding: str) -> pb.Packet:
        """Return what a cache at version `base` lacks; devices that lack the same share one encoding of it."""
        key = (round_number, base, self.cache.version, encoding)
        if key not in self._packets:
            self._packets = {known: packet for known, packet in self._packets.items() if known[0] == round_number}
            self._packets[key] = self._consensus(round_number, base, encoding)
        return self._packets[key]

    def _consensus(self, round_number: int, base: int, encoding: str) -> pb.Packet:
        """Return the packet that brings a cache from version `base` to the newest."""
        cache = self._cache(encoding)
        labels, samples, ages = self._missing(base, cache)
        before = self.previous.get(encoding)
        return encode(
            self.context,
            labels,
            round_number=round_number,
            samples_round=0,
            encoding=encoding,
            base_version=base,
            cache_version=cache.version,
            samples=samples,
            ages=ages,
            entropy_coded=self.entropy_coded,
            base=_held(encoding, before) if before is not None and before.version == base > 0 else None,
        )

    def _missing(self, base: int, cache: LabelCache) -> tuple[SoftLabels, pb.Samples | None, Ints | None]:
        """Return what a cache at `base` lacks, how its samples are named, and the ages that the names don't tell.

        Round r takes the cache from version r to r + 1. What a device missed would cost a bitmap of the whole proxy set
        and an age for each label; one draw, or a few joined ones, with abstentions for what they left undecided, say
        the same in some bytes.
        """
        labels = cache.lacking(base)
        ages = cache.version - cache.changed[labels.ids]
        if cache.version > INITIAL and not ages.any():
            # All of it is about the last round's draw, and what was due then is due with an older cache as well.
            asked = self.ids(cache.version - 1)
            if np.isin(labels.ids, asked).all():
                present = cache.changed[asked] == cache.version
                return soft_labels(asked, cache.labels[asked], present=present), self._drawn(cache.version - 1), None
        first = max(base, INITIAL)
        rounds = cache.version - first
        if self.duration == 0 and 1 < rounds <= self.context.proxy_size // self.per_round:
            samples = self._drawn(first, rounds)
            drawn, since = joined_draws(self.context, samples.draw)
            present = np.isin(drawn, labels.ids)
            if present.sum() == len(labels.ids) and np.array_equal(since[present], ages):
                return soft_labels(drawn, cache.labels[drawn], present=present), samples, None
        return labels, None, ages if ages.any() else None

    def accept(self, device: int, round_number: int, content: bytes) -> SoftLabels:
        """Decode a device's answer and note the cache version that it holds.

        Raises:
            PacketError: the answer breaks a rule of `fedstill.packet`.
        """
        ids, changed, base = self.ids(round_number), self.cache.changed, self.bases.get(device)
        try:
            answer = decode(
                self.context,
                content,
                round_number=round_number,
                ids=ids,
                changed=changed,
                base=base,
                agreed=self._agreed(device),
            )
        except StaleBaseError:
            self.bases.pop(device, None)  # the next request asks for a full packet
            raise
        if answer.cache_version > self.cache.version:
            raise PacketError(f"device claims cache version {answer.cache_version}, newest is {self.cache.version}")
        self.acknowledged[device] = answer.cache_version
        if self.delta:
            self._keep(device, answer)
        return answer.labels if self.priors else replace(answer.labels, class_prior=None)

    def _agreed(self, device: int) -> Agreed | None:
        encoding = self.class_uplinks.get(self.device_classes.get(device, ""), self.uplink)
        return Agreed(encoding, self.entropy_coded) if encoding else None

    def refused(self, device: int, held_version: int) -> None:
        """Note the cache version that a device holds which refused its request."""
        self.acknowledged[device] = max(0, min(held_version, self.cache.version))

    def _keep(self, device: int, answer: Decoded) -> None:
        """Keep what a device has said; what extends something else than is held here can't be referred to."""
        base = self.bases.pop(device, None)
        extends = base is not None and (base.version, base.encoding) == (answer.base_version, answer.encoding)
        if extends or answer.base_version == 0:
            held = base if extends else None
            self.bases[device] = said(self.context, held, answer.labels, answer.encoding, answer.round_number)

    def changeable(self, round_number: int, ids: Ints) -> Bools:
        """Return about which samples of earlier rounds a round may publish a new consensus `[samples]`.

        Not about samples of its own draw that it did not ask about: the devices derive what it asked from their caches.

        Args:
            round_number: the round.
            ids: samples that earlier rounds asked about `[samples]`.
        """
        population, count = self.context.proxy_size, self.per_round
        drawn = draw(self.context.seed, round_number, population, count, independent=self.independent)
        return ~np.isin(ids, np.setdiff1d(drawn, self.ids(round_number)))

    def publish(self, round_number: int, ids: Ints, labels: Floats, again: Ints | None = None) -> None:
        """Fill the cache with the consensus of a finished round, through the codec: both sides hold the same values.

        Args:
            round_number: the finished round, 0 for what the teacher knows before the first; the cache's version is one
                more.
            ids: samples that the consensus covers, ascending `[samples]`.
            labels: consensus `[samples, classes]`.
            again: those of them that earlier rounds asked about; None: none.

        Raises:
            ValueError: with a duration, the consensus covers samples that the round did not ask about: the devices
                could not derive from their caches which ones.
        """
        own = ids if again is None else np.setdiff1d(ids, again)
        if self.duration and round_number and not np.isin(own, self.ids(round_number)).all():
            raise ValueError(f"a consensus about samples that round {round_number} did not ask about")
        if again is not None and not self.changeable(round_number, again).all():
            raise ValueError(f"a new consensus about samples that round {round_number} drew and did not ask about")
        # What devices send may miss a sum of one by as much as their encoding rounds; what the server sends does not.
        labels = (labels / labels.sum(axis=1, dtype=np.float64, keepdims=True)).astype(np.float32)
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
        cache: the device's label cache after this round's packet.
        predict: proxy samples to predict, ascending `[samples]`.
        asked: how the request names them.
        acknowledged: round of the device's last packet that a delta may extend; 0: none.
    """

    round_number: int
    rounds: int
    cache: LabelCache
    predict: Ints
    asked: pb.Samples
    acknowledged: int = 0

    @property
    def usable(self) -> Ints:
        """Samples with a label to learn from, ascending; fewer than the cache knows when labels expire."""
        return self.cache.usable(self.round_number, self.asked.draw.duration)


def open_request(context: Context, cache: LabelCache, content: bytes) -> RoundTask:
    """Check a request and fill the device's cache.

    Args:
        context: what both sides of the run share.
        cache: the device's cache before the round.
        content: the serialized request.

    Raises:
        PacketError: the request or its packet breaks a rule.
        StaleCacheError: the packet does not fit the device's cache; the device tells what it can go on from.
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
    if request.HasField("consensus"):
        cache = _filled(context, cache, request.consensus, request.round)
    if cache.checksum != request.cache_checksum:
        raise StaleCacheError(0, "the label cache is not the server's, so it starts anew")
    predict = decode_samples(context, request.predict, cache.changed)
    return RoundTask(request.round, request.rounds, cache, predict, request.predict, request.acknowledged)


def _filled(context: Context, cache: LabelCache, packet: pb.Packet, round_number: int) -> LabelCache:
    """Return the cache after a request's consensus, whose samples and labels may follow from the cache before it.

    A packet that extends nothing replaces whatever the device holds.
    """
    if packet.base_version == 0:
        cache = LabelCache.empty(context.proxy_size, context.classes)
    is_delta = packet.HasField("base_checksum")
    cache.expect(packet.base_version, exactly=is_delta)
    try:
        base = _held(encoding_of(context, packet), cache) if is_delta else None
        return cache.after(check(context, packet, round_number=round_number, changed=cache.changed, base=base))
    except PacketError as error:
        raise StaleCacheError(0, f"the consensus can't be read with this label cache: {error}") from error


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
        samples=task.asked,
        entropy_coded=entropy_coded,
        base=base,
    )
    return packet.SerializeToString(deterministic=True)
