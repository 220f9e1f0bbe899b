"""Both halves of a round's exchange, without transport: bytes in, typed objects out.

The server asks each device about the round's proxy samples and sends along what the device's label cache lacks; the
device fills its cache, learns, and answers with its soft labels. Which of the drawn samples are due (`fedstill.expiry`)
never travels: a request, a consensus and an answer name the draw, and each side derives the rest from its own cache.
Nothing here knows how bytes travel or models learn.
"""

from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError

from fedstill.cache import LabelCache
from fedstill.errors import PacketError, StaleCacheError
from fedstill.expiry import INITIAL, due
from fedstill.packet import CONTRACT_VERSION, Context, check, decode, decode_samples, encode
from fedstill.soft_labels import Floats, Ints, SoftLabels, draw, soft_labels
from protos import soft_labels_pb2 as pb


@dataclass
class ServerExchange:
    """The server's half of all rounds.

    Attributes:
        context: what both sides of the run share.
        per_round: proxy samples that a round draws.
        rounds: rounds of the whole run.
        encoding: encoding of what goes down, a key of `fedstill.packet.ENCODINGS`.
        duration: D, the age in rounds at which a consensus is asked for again; 0: it is at each draw.
        independent: whether each round draws anew, instead of walking through a permutation.
        cache: the newest consensus, as the devices decode it.
        acknowledged: cache version of each device in the last finished round.
    """

    context: Context
    per_round: int
    rounds: int
    encoding: str = "float16"
    duration: int = 0
    independent: bool = False
    cache: LabelCache = field(init=False)
    acknowledged: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = LabelCache.empty(self.context.proxy_size, self.context.classes)

    def ids(self, round_number: int) -> Ints:
        """Return the proxy samples that a round asks about, ascending: those of its draw that are due."""
        population, count = self.context.proxy_size, self.per_round
        drawn = draw(self.context.seed, round_number, population, count, independent=self.independent)
        changed = self.cache.changed[drawn]
        # Once the round is published, what it asked about is what changed at its version and what is due still.
        asked: Ints = drawn[(changed == round_number + 1) | due(changed, round_number, self.duration)]
        return asked

    def request(self, device: int, round_number: int) -> bytes:
        """Return the serialized request of a round for one device."""
        base = self.acknowledged.get(device, 0)
        request = pb.RoundRequest(
            version=CONTRACT_VERSION,
            run=self.context.seed,
            round=round_number,
            rounds=self.rounds,
            predict=self._drawn(round_number),
            cache_checksum=self.cache.checksum,
        )
        if self.cache.version > base:
            request.consensus.CopyFrom(self._consensus(base, round_number))
        return request.SerializeToString(deterministic=True)

    def _drawn(self, round_number: int) -> pb.Samples:
        named = pb.Samples.Draw(
            seed=self.context.seed,
            round=round_number,
            count=self.per_round,
            independent=self.independent,
            duration=self.duration,
        )
        return pb.Samples(draw=named)

    def _consensus(self, base: int, round_number: int) -> pb.Packet:
        """Return the packet that brings a cache from version `base` to the newest."""
        version = self.cache.version
        labels, samples = self.cache.lacking(base), None
        ages = version - self.cache.changed[labels.ids]
        if version > INITIAL and not ages.any():
            # All of it is about the last round's draw, and what was due then is due with an older cache as well.
            asked = self.ids(version - 1)
            if np.isin(labels.ids, asked).all():
                present = self.cache.changed[asked] == version
                labels = soft_labels(asked, self.cache.labels[asked], present=present)
                samples = self._drawn(version - 1)
        return encode(
            self.context,
            labels,
            round_number=round_number,
            samples_round=0,
            encoding=self.encoding,
            base_version=base,
            cache_version=version,
            samples=samples,
            ages=ages if ages.any() else None,
        )

    def accept(self, device: int, round_number: int, content: bytes) -> SoftLabels:
        """Decode a device's answer and note the cache version that it holds.

        Raises:
            PacketError: the answer breaks a rule of `fedstill.packet`.
        """
        ids, changed = self.ids(round_number), self.cache.changed
        answer = decode(self.context, content, round_number=round_number, ids=ids, changed=changed)
        if answer.cache_version > self.cache.version:
            raise PacketError(f"device claims cache version {answer.cache_version}, newest is {self.cache.version}")
        self.acknowledged[device] = answer.cache_version
        return answer.labels

    def refused(self, device: int, held_version: int) -> None:
        """Note the cache version that a device holds which refused its request."""
        self.acknowledged[device] = max(0, min(held_version, self.cache.version))

    def publish(self, round_number: int, ids: Ints, labels: Floats) -> None:
        """Fill the cache with the consensus of a finished round, through the codec: both sides hold the same values.

        Args:
            round_number: the finished round, 0 for what the teacher knows before the first; the cache's version is one
                more.
            ids: samples that the consensus covers, ascending `[samples]`.
            labels: consensus `[samples, classes]`.

        Raises:
            ValueError: with a duration, the consensus covers samples that the round did not ask about: the devices
                could not derive from their caches which ones.
        """
        if self.duration and round_number and not np.isin(ids, self.ids(round_number)).all():
            raise ValueError(f"a consensus about samples that round {round_number} did not ask about")
        packet = encode(
            self.context,
            soft_labels(ids, labels),
            round_number=round_number,
            samples_round=round_number,
            encoding=self.encoding,
        )
        decoded = check(self.context, packet).labels
        self.cache = self.cache.filled(ids, decoded.probabilities, round_number + 1)


@dataclass(frozen=True)
class RoundTask:
    """What a device has to do in a round.

    Attributes:
        round_number: the round, from 1.
        rounds: rounds of the whole run.
        cache: the device's label cache after this round's packet.
        predict: proxy samples to predict, ascending `[samples]`.
        asked: how the request names them.
    """

    round_number: int
    rounds: int
    cache: LabelCache
    predict: Ints
    asked: pb.Samples

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
    return RoundTask(request.round, request.rounds, cache, predict, request.predict)


def _filled(context: Context, cache: LabelCache, packet: pb.Packet, round_number: int) -> LabelCache:
    """Return the cache after a request's consensus, whose samples may follow from the cache before it.

    A packet that extends nothing replaces whatever the device holds.
    """
    if packet.base_version == 0:
        cache = LabelCache.empty(context.proxy_size, context.classes)
    cache.expect(packet.base_version)
    try:
        return cache.after(check(context, packet, round_number=round_number, changed=cache.changed))
    except PacketError as error:
        raise StaleCacheError(0, f"the consensus can't be read with this label cache: {error}") from error


def close_task(context: Context, task: RoundTask, labels: SoftLabels, encoding: str) -> bytes:
    """Return the serialized answer of a device to a round's task."""
    packet = encode(
        context,
        labels,
        round_number=task.round_number,
        samples_round=task.round_number,
        encoding=encoding,
        cache_version=task.cache.version,
        samples=task.asked,
    )
    return packet.SerializeToString(deterministic=True)
