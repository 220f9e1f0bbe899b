"""Both halves of a round's exchange, without transport: bytes in, typed objects out.

The server asks each device about the round's proxy samples and sends along what the device's label cache lacks; the
device fills its cache, learns, and answers with its soft labels. Nothing here knows how bytes travel or models learn.
"""

from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError

from fedstill.cache import LabelCache
from fedstill.errors import PacketError
from fedstill.packet import (
    CONTRACT_VERSION,
    Context,
    check,
    decode,
    decode_samples,
    encode,
    encode_samples,
    joined_draws,
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
        encoding: encoding of what goes down, a key of `fedstill.packet.ENCODINGS`.
        cache: the newest consensus, as the devices decode it.
        acknowledged: cache version of each device in the last finished round.
    """

    context: Context
    per_round: int
    rounds: int
    encoding: str = "float16"
    cache: LabelCache = field(init=False)
    acknowledged: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = LabelCache.empty(self.context.proxy_size, self.context.classes)

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
        )
        if self.cache.version > base:
            labels, first, rounds = self._missing(base)
            packet = encode(
                self.context,
                labels,
                round_number=round_number,
                samples_round=first,
                samples_rounds=rounds,
                samples_per_round=self.per_round,
                encoding=self.encoding,
                base_version=base,
                cache_version=self.cache.version,
            )
            request.consensus.CopyFrom(packet)
        return request.SerializeToString(deterministic=True)

    def _missing(self, base: int) -> tuple[SoftLabels, int, int]:
        """Return what a cache at `base` lacks, and the first round and number of rounds whose draws its samples are.

        Round r takes the cache from version r to r + 1. A device that missed rounds, or a consensus that left samples
        undecided, would cost a bitmap of the whole proxy set; a few draws with abstentions are smaller.
        """
        labels = self.cache.lacking(base)
        first, last = max(base, 1), self.cache.version - 1
        rounds = last - first + 1
        if not 1 <= rounds <= self.context.proxy_size // self.per_round:
            return labels, last, 1
        drawn = joined_draws(self.context, first, rounds, self.per_round)
        if not np.isin(labels.ids, drawn).all():
            return labels, last, 1
        return soft_labels(drawn, self.cache.labels[drawn], present=np.isin(drawn, labels.ids)), first, rounds

    def accept(self, device: int, round_number: int, content: bytes) -> SoftLabels:
        """Decode a device's answer and note the cache version that it holds.

        Raises:
            PacketError: the answer breaks a rule of `fedstill.packet`.
        """
        answer = decode(self.context, content, round_number=round_number, ids=self.ids(round_number))
        if answer.cache_version > self.cache.version:
            raise PacketError(f"device claims cache version {answer.cache_version}, newest is {self.cache.version}")
        self.acknowledged[device] = answer.cache_version
        return answer.labels

    def publish(self, round_number: int, ids: Ints, labels: Floats) -> None:
        """Fill the cache with the consensus of a finished round, through the codec: both sides hold the same values.

        Args:
            round_number: the finished round, 0 for what the teacher knows before the first; the cache's version is one
                more.
            ids: samples that the consensus covers, ascending `[samples]`.
            labels: consensus `[samples, classes]`.
        """
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
        cache: the device's label cache after this round's packet; what to digest.
        predict: proxy samples to predict, ascending `[samples]`.
    """

    round_number: int
    rounds: int
    cache: LabelCache
    predict: Ints


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
        cache = cache.after(check(context, request.consensus, round_number=request.round))
    return RoundTask(request.round, request.rounds, cache, predict)


def close_task(context: Context, task: RoundTask, labels: SoftLabels, encoding: str) -> bytes:
    """Return the serialized answer of a device to a round's task."""
    packet = encode(
        context,
        labels,
        round_number=task.round_number,
        samples_round=task.round_number,
        encoding=encoding,
        cache_version=task.cache.version,
    )
    return packet.SerializeToString(deterministic=True)
