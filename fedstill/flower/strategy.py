"""Federated distillation as a Flower Strategy: only soft labels travel, one message each way per host and round.

`RoundStrategy` runs the rounds of any exchange of packets; `FederatedDistillation` is it with soft labels. A round:
rediscover the nodes, ask new ones which devices they carry, send each host its devices' requests with an explicit ttl,
take what comes within the timeout, check every packet, hold the quorum, and hand the answers to `conclude`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from typing_extensions import TypeVar

from fedstill.consensus import Votes, mean
from fedstill.consensus.ballots import Ballots
from fedstill.errors import PacketError, QuorumError
from fedstill.exchange import ServerExchange
from fedstill.failures import plain
from fedstill.flower.adapter import LOST, serialize
from fedstill.flower.messages import (
    PACKETS,
    QUERY,
    TRAIN,
    WEIGHTS,
    devices_of,
    pack_requests,
    packet_bytes,
    unpack_answers,
)
from fedstill.participation import participants
from fedstill.rounds import ABSENT, Owner, RoundReplies, Traffic
from fedstill.soft_labels import Ints, SoftLabels

log = logging.getLogger("fedstill")
MAX_FAILED_QUERIES = 3
QUERY_LIMIT = 180.0
"""Seconds to wait for hosts to tell their devices, which costs them nothing: the round waits for one that is silent."""
IN_MEMORY = 256_000_000  # bytes of a round's soft labels, of which a consensus makes a copy

A = TypeVar("A", default=SoftLabels)
A_co = TypeVar("A_co", covariant=True)
Conclude = Callable[[RoundReplies[A]], Mapping[str, float]]


def size_of_votes(devices: int, samples: int, classes: int) -> int:
    """Return the bytes of a round's soft labels in memory."""
    return 4 * devices * samples * classes


class Exchange(Protocol[A_co]):
    """What the packets of a run say; `fedstill.exchange.ServerExchange` is that of soft labels."""

    def ids(self, round_number: int) -> Ints:
        """Return the proxy samples that a round is about, ascending; empty where it is about none."""

    def request(self, device: int, round_number: int) -> bytes:
        """Return the serialized request of a round for one device."""

    def accept(self, device: int, round_number: int, content: bytes) -> A_co:
        """Decode a device's answer.

        Raises:
            PacketError: the answer breaks a rule.
        """

    def refused(self, device: int, held_version: int) -> None:
        """Note that a device refused its request, and the version of what it holds."""


@dataclass(frozen=True)
class RoundPolicy:
    """When a round counts.

    Attributes:
        expected: devices that the run expects; 0: those that show up in the first round.
        quorum: share of the expected devices whose answers a round needs, in (0, 1].
        timeout: seconds to wait for answers, and at the start for hosts.
        ttl: seconds after which a host no longer starts on a message.
        active: devices that a round asks, drawn from `seed`; 0: all. The quorum is a share of these.
        seed: run seed.
        attempts: how often a round's message is sent to a host that gets lost or stays silent, 1 or more.
        absence: seconds to wait for such a host to come back.
        silence: where there are several attempts, seconds after which a host that says nothing is asked again; twice as
            long each time.
        owners: host and class of each device, where they are known; a host that claims another's device or class is not
            believed.
    """

    expected: int = 0
    quorum: float = 0.5
    timeout: float = 3600.0
    ttl: float = 3600.0
    active: int = 0
    seed: int = 0
    attempts: int = 1
    absence: float = 180.0
    silence: float = 120.0
    owners: Mapping[int, Owner] | None = None

    def asked(self, devices: int) -> int:
        """Return how many of `devices` a round asks."""
        return min(self.active, devices) if self.active else devices

    def needed(self, devices: int) -> int:
        """Return how many answers a round of a run with `devices` needs."""
        return max(1, math.ceil(self.quorum * self.asked(devices)))


class RoundStrategy(Strategy, Generic[A]):
    """Exchange packets with whatever hosts the grid has, a message each way per host and round.

    Args:
        exchange: the server's half: what the packets say.
        conclude: makes a round's answers into knowledge, writes the checkpoint and returns the round's metrics.
        policy: quorum and waiting.
        first_round: the first round to run, more than 1 on resume.
        sends_weights: whether the packets are weights, and travel in the record that is theirs alone.

    Attributes:
        asking: told how many devices a round asks, before it does.
        heard: told after each host's answer how many devices of the round have answered, whatever they said.
    """

    def __init__(
        self,
        exchange: Exchange[A],
        conclude: Conclude[A],
        policy: RoundPolicy | None = None,
        first_round: int = 1,
        *,
        sends_weights: bool = False,
    ) -> None:
        self._exchange = exchange
        self.conclude = conclude
        self.policy = policy if policy is not None else RoundPolicy()
        self.first_round = first_round
        self._record = WEIGHTS if sends_weights else PACKETS
        self.traffic = Traffic()
        self.asking: Callable[[int], object] = lambda _: None
        self.heard: Callable[[int], object] = lambda _: None
        self.device_classes: dict[int, str] = {}
        self._hosts: dict[int, list[int]] = {}
        self._asked: list[int] | None = None
        self._failed_queries = 0

    def summary(self) -> None:
        """Log what this strategy exchanges."""
        log.info("%s, quorum %.0f %%", self._record, 100 * self.policy.quorum)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds from `first_round` to `num_rounds`.

        Overrides Flower's own loop: there are no arrays to send (`initial_arrays` and the configs stay unused), a run
        starts where its checkpoint ends, and a round below its quorum ends the run instead of passing unnoticed.

        Raises:
            QuorumError: a round got fewer usable answers than its quorum.
        """
        self.summary()
        result = Result()
        nothing, config = ArrayRecord(), ConfigRecord()
        for round_number in range(self.first_round, num_rounds + 1):
            messages = list(self.configure_train(round_number, nothing, config, grid))
            replies = self._deliver(grid, messages, min(timeout, self.policy.timeout))
            _, metrics = self.aggregate_train(round_number, replies)
            if metrics is not None:
                result.train_metrics_clientapp[round_number] = metrics
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per host with the requests of its devices."""
        self._discover(grid)
        reached = sorted(device for devices in self._hosts.values() for device in devices)
        self._asked = self._choose(server_round, reached)
        asked = None if self._asked is None else set(self._asked)
        self.asking(len(reached if asked is None else asked))
        for node, devices in sorted(self._hosts.items()):
            own = devices if asked is None else [device for device in devices if device in asked]
            if not own:
                continue
            requests = {device: self._exchange.request(device, server_round) for device in own}
            for device, request in requests.items():
                self.traffic.add_downlink(device, len(request))
            content = pack_requests(requests, self._record)
            yield Message(content, node, TRAIN, ttl=self.policy.ttl, group_id=str(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check all answers, hold the quorum and conclude the round."""
        votes = self._box(server_round)
        metrics: dict[int, Mapping[str, float]] = {}
        refused: dict[int, str] = {}
        for reply in replies:
            if reply.has_error():
                # Code 5 comes from the SuperLink itself, so the source does not say which host is gone.
                log.warning("round %d: a host failed: %s", server_round, plain(reply.error.reason or "no reason given"))
                continue
            self._take(server_round, reply, votes, metrics, refused)
            self.heard(len(votes) + len(refused))
        awaited = self.device_classes if self._asked is None else self._asked
        missing = [device for device in awaited if device not in votes and device not in refused]
        refused.update(dict.fromkeys(missing, "no answer"))
        for device, reason in sorted(refused.items()):
            log.warning("round %d: device %d: %s", server_round, device, reason)
        round_replies = self._settle(
            RoundReplies(
                round_number=server_round,
                ids=self._exchange.ids(server_round),
                votes=dict(sorted(votes.items())) if isinstance(votes, dict) else votes,
                metrics=dict(sorted(metrics.items())),
                refused=refused,
                device_classes=self.device_classes,
            )
        )
        devices = self.policy.expected or len(self.device_classes)
        expected, needed = self.policy.asked(devices), self.policy.needed(devices)
        if round_replies.answers < needed:
            raise QuorumError(
                f"round {server_round}: {round_replies.answers} usable answers from {expected} devices, the quorum is"
                f" {needed}"
                + (f"; first refusal: {next(iter(sorted(refused.items())))[1]}" if refused else "")
                + "; check the devices, then continue with --resume"
            )
        concluded = self.conclude(round_replies)
        return None, MetricRecord({key: float(value) for key, value in concluded.items()})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no message: local evaluation rides along with training."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing, as nothing was asked."""
        return None

    def _choose(self, round_number: int, reached: list[int]) -> list[int] | None:
        """Return the devices that a round asks; None: all known ones.

        Without a draw, a device whose host is gone is asked in vain: its absence is told.

        Args:
            round_number: the round.
            reached: devices whose host is there, ascending.
        """
        if not self.policy.active:
            return None
        return participants(self.policy.seed, round_number, reached, self.policy.asked(len(reached)))

    def _settle(self, replies: RoundReplies[A]) -> RoundReplies[A]:
        """Return what of a round's replies the round may use: here all that came."""
        return replies

    def _take(
        self,
        round_number: int,
        reply: Message,
        votes: MutableMapping[int, A],
        metrics: dict[int, Mapping[str, float]],
        refused: dict[int, str],
    ) -> None:
        own_devices = set(self._hosts.get(reply.metadata.src_node_id, ()))
        if self._asked is not None:
            own_devices.intersection_update(self._asked)
        left = _packets_in(reply)  # what is no packet of an asked device is envelope
        try:
            answers = unpack_answers(reply.content, self._record)
        except ValueError as error:
            refused.update({device: str(error) for device in own_devices})
            self.traffic.envelope_bytes += left
            return
        for device in answers.keys() - own_devices:
            log.warning("round %d: a host answered for device %d, which was not asked there", round_number, device)
        answers = {device: answer for device, answer in answers.items() if device in own_devices}
        self.traffic.envelope_bytes += left - sum(len(answer.packet) for answer in answers.values())
        for device, answer in answers.items():
            self.traffic.add_uplink(device, len(answer.packet))
            if answer.absence:  # it has not looked at the request: what it holds is as before
                refused[device] = ABSENT + answer.absence
                continue
            if answer.refusal:
                refused[device] = answer.refusal
                self._exchange.refused(device, answer.held_version)
                continue
            try:
                votes[device] = self._exchange.accept(device, round_number, answer.packet)
                metrics[device] = answer.metrics
            except PacketError as error:
                refused[device] = str(error)

    def _box(self, round_number: int) -> MutableMapping[int, A]:
        """Return what takes a round's answers by device: it is in ascending order, or a dict to be sorted."""
        return {}

    def _deliver(self, grid: Grid, messages: list[Message], timeout: float) -> Iterator[Message]:
        """Send a round's messages, again to hosts that got lost or say nothing, and yield the replies.

        A host that starts anew before anybody misses it, or whose ClientApp was killed, has lost what it was asked,
        and nobody tells. A device answers a round that it finished from what it did, so that nothing is done twice;
        one that is still at work answers the second message when it is done with the first.
        """
        deadline = time.monotonic() + timeout
        sent = messages
        for attempt in range(1, self.policy.attempts + 1):
            patience = max(1.0, deadline - time.monotonic())
            if attempt < self.policy.attempts:
                patience = min(patience, self.policy.silence * 2 ** (attempt - 1))
            lost: dict[str, Message] = {}
            heard: set[str] = set()
            for reply in self._send(grid, sent, patience, repeated=attempt > 1):
                heard.add(reply.metadata.reply_to_message_id)
                if attempt < self.policy.attempts and reply.has_error() and reply.error.code in LOST:
                    lost[reply.metadata.reply_to_message_id] = reply
                else:
                    yield reply
            silent = [message for message in sent if message.metadata.message_id not in heard]
            gone = [message for message in sent if message.metadata.message_id in lost]
            back = self._wait_for(grid, {message.metadata.dst_node_id for message in gone}, deadline)
            gone = [message for message in gone if message.metadata.dst_node_id in back]
            again = {message.metadata.message_id for message in gone}
            yield from (reply for number, reply in lost.items() if number not in again)
            sent = gone + silent if time.monotonic() < deadline else gone
            if not sent or attempt == self.policy.attempts:
                return
            log.info("asking again: %d hosts that were lost and came back, %d silent ones", len(gone), len(silent))
            sent = [
                Message(
                    message.content,
                    message.metadata.dst_node_id,
                    message.metadata.message_type,
                    ttl=message.metadata.ttl,
                    group_id=message.metadata.group_id,
                )
                for message in sent
            ]

    def _wait_for(self, grid: Grid, nodes: set[int], deadline: float) -> set[int]:
        """Return those of the nodes that are there, as soon as all are, or after the policy's absence."""
        deadline = min(deadline, time.monotonic() + self.policy.absence)
        while nodes:
            back = nodes & set(grid.get_node_ids())
            if back == nodes or time.monotonic() > deadline:
                return back
            time.sleep(1.0)
        return set()

    def _send(
        self, grid: Grid, messages: list[Message], timeout: float, *, repeated: bool = False
    ) -> Iterator[Message]:
        """Send messages and yield the replies, one in memory at a time where the grid has them so.

        All are counted once the last reply is taken: only a message that was sent has its id and full size. A repeated
        message's packets were counted when they were made; all of it is envelope then.

        Who a reply is from, its sender says, and nobody else checks: it counts only where the message that it answers
        was sent to that host.
        """
        asked: dict[int, list[Message]] = {}
        for message in messages:
            asked.setdefault(message.metadata.dst_node_id, []).append(message)
        for reply in grid.send_and_receive(messages, timeout=timeout):
            source, question = reply.metadata.src_node_id, reply.metadata.reply_to_message_id
            right = reply.has_error() or any(sent.metadata.message_id == question for sent in asked.get(source, ()))
            self.traffic.add_message(len(serialize(reply)), _packets_in(reply) if right else 0)
            if right:
                yield reply
            else:
                log.warning("a reply claims to be of host %d, which was not asked that: it is not used", source)
        for message in messages:
            self.traffic.add_message(len(serialize(message)), 0 if repeated else _packets_in(message))

    def _discover(self, grid: Grid) -> None:
        """Learn which hosts are there and which devices they carry; wait for the quorum as long as `timeout`."""
        expected = self.policy.expected or 1
        needed = math.ceil(self.policy.quorum * expected)
        deadline = time.monotonic() + self.policy.timeout
        while True:
            nodes = set(grid.get_node_ids())
            self._hosts = {node: devices for node, devices in self._hosts.items() if node in nodes}
            unknown = sorted(nodes - self._hosts.keys())
            if unknown:
                limit = min(self.policy.timeout, QUERY_LIMIT)
                queries = [Message(RecordDict(), node, QUERY, ttl=min(self.policy.ttl, limit)) for node in unknown]
                self._register(list(self._send(grid, queries, limit)))
            known = sum(len(devices) for devices in self._hosts.values())
            if known >= needed or time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def _register(self, replies: list[Message]) -> None:
        """Note the devices of new hosts.

        Raises:
            QuorumError: every host failed, several times in a row: waiting on would not help.
        """
        failed = [reply for reply in replies if reply.has_error()]
        self._failed_queries = self._failed_queries + 1 if failed and len(failed) == len(replies) else 0
        if self._failed_queries >= MAX_FAILED_QUERIES and not self._hosts:
            reason = plain(failed[0].error.reason or "no reason given").strip()
            raise QuorumError(f"no host can tell its devices: {reason}")
        for reply in replies:
            devices = self._own(reply.metadata.src_node_id, devices_of(reply))
            for host, carried in self._hosts.items():
                self._hosts[host] = [device for device in carried if device not in devices]
            if devices:
                self._hosts[reply.metadata.src_node_id] = sorted(devices)
                self.device_classes.update(devices)

    def _own(self, node: int, claimed: Mapping[int, str]) -> dict[int, str]:
        """Return those of the devices that a host claims which are its own."""
        owners = self.policy.owners
        if owners is None:
            return dict(claimed)
        own = {device: kind for device, kind in claimed.items() if owners.get(device) == (node, kind)}
        for device in claimed.keys() - own.keys():
            log.warning("host %d claims device %d, which is not its own, or of another class", node, device)
        return own


def _packets_in(message: Message) -> int:
    return packet_bytes(message.content) if message.has_content() else 0


class FederatedDistillation(RoundStrategy):
    """Exchange soft labels about a shared proxy set with whatever hosts the grid has.

    Args:
        exchange: the server's half: draws, caches, packets.
        conclude: makes a round's answers into knowledge and returns the round's metrics; it publishes the consensus
            and writes the checkpoint. Default: publish the mean over those who answered.
        policy: quorum and waiting.
        first_round: the first round to run, more than 1 on resume.
        scratch: a folder on a disk for the soft labels of rounds whose devices have more than fit memory; None: they
            stay in memory.
    """

    def __init__(
        self,
        exchange: ServerExchange,
        conclude: Conclude | None = None,
        policy: RoundPolicy | None = None,
        first_round: int = 1,
        *,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(exchange, conclude if conclude is not None else self._publish_mean, policy, first_round)
        self.exchange = exchange
        self.device_classes = exchange.device_classes  # one and the same: what goes down is encoded by class
        self._scratch = scratch

    def summary(self) -> None:
        """Log what this strategy exchanges."""
        log.info("%d proxy samples a round, quorum %.0f %%", self.exchange.per_round, 100 * self.policy.quorum)

    def _box(self, round_number: int) -> MutableMapping[int, SoftLabels]:
        samples, classes = len(self.exchange.ids(round_number)), self.exchange.context.classes
        # By the run's devices, not by those that are here today: a rule may round otherwise from the disk.
        devices = self.policy.asked(self.policy.expected or len(self.device_classes))
        if self._scratch is None or size_of_votes(devices, samples, classes) <= IN_MEMORY:
            return {}
        return Ballots(samples, classes, self._scratch)

    def _publish_mean(self, replies: RoundReplies) -> Mapping[str, float]:
        consensus = mean(Votes.stack(replies.ids, replies.votes))
        covered = consensus.covered
        self.exchange.publish(replies.round_number, replies.ids[covered], consensus.labels[covered])
        return {"answers": float(len(replies.votes)), "covered": float(covered.mean()) if len(covered) else 1.0}


__all__ = ["Exchange", "FederatedDistillation", "RoundPolicy", "RoundStrategy"]
