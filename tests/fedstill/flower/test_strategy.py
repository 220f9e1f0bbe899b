import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedstill.cache import LabelCache
from fedstill.consensus.ballots import Ballots
from fedstill.errors import QuorumError
from fedstill.exchange import RoundTask, ServerExchange, close_task, open_request
from fedstill.flower import DeviceAnswer, FederatedDistillation, RoundPolicy, answer, answer_alone, describe
from fedstill.flower.adapter import serialize
from fedstill.flower.messages import pack_requests, unpack_answers, unpack_requests
from fedstill.flower.strategy import QUERY_LIMIT
from fedstill.packet import Context as Shared
from fedstill.participation import participants
from fedstill.rounds import Owner, RoundReplies
from fedstill.soft_labels import Floats, soft_labels
from simulations.engines.local import LocalGrid

SHARED = Shared(seed=1, proxy_digest=b"abcdefgh", proxy_size=30, classes=3)
Work = Callable[[int, bytes], DeviceAnswer]


def keep_in(seen: list[RoundReplies]) -> Callable[[RoundReplies], dict[str, float]]:
    """Return a `conclude` that only notes what it got."""

    def conclude(replies: RoundReplies) -> dict[str, float]:
        seen.append(replies)
        return {}

    return conclude


def good(device: int, request: bytes, disks: dict[int, LabelCache] | None = None) -> DeviceAnswer:
    """Answer like a device that keeps its cache in `disks`, or without them like one whose disk is always empty."""
    kept = {} if disks is None else disks
    task = open_request(SHARED, kept.get(device, LabelCache.empty(30, 3)), request)
    kept[device] = task.cache
    rows = np.random.default_rng(device).dirichlet(np.ones(3), len(task.predict)).astype(np.float32)
    return DeviceAnswer(close_task(SHARED, task, soft_labels(task.predict, rows), "float16"), {"accuracy": 0.5})


def hosts(work: Work) -> ClientApp:
    """Three hosts with two devices each."""
    return answering(lambda asked: {device: work(device, request) for device, request in asked.items()})


def answering(answers: Callable[[Mapping[int, bytes]], Mapping[int, DeviceAnswer]]) -> ClientApp:
    """The same, who answer a message as a whole."""
    app = ClientApp()

    @app.query("devices")
    def devices(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        return describe(message, {2 * place: "big", 2 * place + 1: "small"})

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        return answer(message, answers)

    return app


def run(work: Work, quorum: float = 0.5, rounds: int = 1) -> tuple[FederatedDistillation, list[RoundReplies]]:
    seen: list[RoundReplies] = []
    exchange = ServerExchange(SHARED, per_round=10, rounds=rounds)
    strategy = FederatedDistillation(exchange, keep_in(seen), RoundPolicy(6, quorum, timeout=1))
    strategy.start(LocalGrid(hosts(work), 3, {}), num_rounds=rounds)
    return strategy, seen


def test_a_round_gathers_the_votes_of_all_devices_in_order_with_their_classes() -> None:
    strategy, (replies,) = run(good)
    assert list(replies.votes) == [0, 1, 2, 3, 4, 5]
    assert replies.device_classes[4] == "big"
    assert replies.metrics[3] == {"accuracy": 0.5}
    assert set(strategy.traffic.uplink) == set(range(6))


def test_votes_too_many_for_memory_are_kept_on_disk_and_decide_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = []
    for limit in (10**9, 0):
        monkeypatch.setattr("fedstill.flower.strategy.IN_MEMORY", limit)
        exchange = ServerExchange(SHARED, per_round=10, rounds=2)
        strategy = FederatedDistillation(exchange, policy=RoundPolicy(6), scratch=tmp_path)
        disks: dict[int, LabelCache] = {}
        app = hosts(lambda device, request, disks=disks: good(device, request, disks))  # type: ignore[misc]
        strategy.start(LocalGrid(app, 3, {}), num_rounds=2)
        caches.append(exchange.cache)
    assert caches[0].checksum == caches[1].checksum
    assert caches[0].version == 3


def test_where_votes_lie_depends_on_the_devices_of_the_run_not_on_those_that_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedstill.flower.strategy.IN_MEMORY", 4 * 5 * 10 * 3)  # five devices
    seen: list[RoundReplies] = []
    exchange = ServerExchange(SHARED, per_round=10, rounds=1)
    strategy = FederatedDistillation(exchange, keep_in(seen), RoundPolicy(6), scratch=tmp_path)
    strategy.start(LocalGrid(hosts(good), 2, {}), num_rounds=1)
    assert len(seen[0].votes) == 4
    assert isinstance(seen[0].votes, Ballots)


def test_bad_packets_are_refused_with_a_reason_and_the_round_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def one_liar(device: int, request: bytes) -> DeviceAnswer:
        honest = good(device, request)
        return DeviceAnswer(honest.packet[:-9], {}) if device == 2 else honest

    with caplog.at_level(logging.WARNING, logger="fedstill"):
        _, (replies,) = run(one_liar)
    assert 2 not in replies.votes
    assert len(replies.votes) == 5
    assert replies.refused[2]
    assert "device 2" in caplog.text


def test_a_host_that_raises_costs_only_its_own_devices() -> None:
    def broken(device: int, request: bytes) -> DeviceAnswer:
        if device >= 4:
            raise RuntimeError("out of memory")
        return good(device, request)

    _, (replies,) = run(broken)
    assert list(replies.votes) == [0, 1, 2, 3]
    assert replies.refused == {4: "no answer", 5: "no answer"}


def test_a_host_can_not_speak_for_anothers_device() -> None:
    def impostor(device: int, request: bytes) -> DeviceAnswer:
        return good(device, request)

    app = hosts(impostor)
    strange = ClientApp()
    strange.query("devices")(lambda message, context: describe(message, {0: "big"}))

    @strange.train("distill")
    def distill(message: Message, context: Context) -> Message:
        return answer(message, lambda asked: {1: good(1, next(iter(asked.values())))})

    class Mixed(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            chosen = strange if context.node_config["partition-id"] == 0 else app
            return chosen(message, context)

    seen: list[RoundReplies] = []
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), RoundPolicy(6, 0.5, 1))
    strategy.start(LocalGrid(Mixed(), 3, {}), num_rounds=1)
    assert list(seen[0].votes) == [2, 3, 4, 5]


def test_a_round_below_its_quorum_ends_the_run_and_says_how_to_go_on() -> None:
    def mostly_dead(device: int, request: bytes) -> DeviceAnswer:
        return good(device, request) if device == 0 else DeviceAnswer(b"", {}, "disk full")

    with pytest.raises(QuorumError, match=r"round 1: 1 usable answers from 6 devices, the quorum is 3.*disk full"):
        run(mostly_dead)


def test_a_device_that_refuses_for_a_stale_cache_is_served_in_full_next_round() -> None:
    requests: list[int] = []
    disks: dict[int, LabelCache] = {}

    def forgetful(device: int, request: bytes) -> DeviceAnswer:
        if device == 0:
            requests.append(len(request))
            return DeviceAnswer(b"", {}, "stale", held_version=0)
        return good(device, request, disks)

    exchange = ServerExchange(SHARED, per_round=10, rounds=2)
    exchange.publish(0, np.arange(30), np.full((30, 3), 1 / 3, np.float32))
    exchange.acknowledged[0] = 1
    strategy = FederatedDistillation(exchange, lambda replies: {}, RoundPolicy(6, 0.5, 1))
    strategy.start(LocalGrid(hosts(forgetful), 3, {}), num_rounds=2)
    assert requests[1] > requests[0] + 30 * 3


def test_packets_and_envelopes_add_up_to_the_messages_and_shared_packets_count_per_device() -> None:
    strategy, _ = run(good)
    per_device = strategy.traffic.downlink[0]
    assert strategy.traffic.downlink == dict.fromkeys(range(6), per_device)
    assert strategy.traffic.messages == 2 * 3 + 2 * 3  # which devices they carry, and a round
    assert strategy.traffic.envelope_bytes > 0


class ScaledGrid(LocalGrid):
    """A LocalGrid that adds up the sizes of the messages as they are sent."""

    total = 0

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        self.total += len(serialize(message)) + len(serialize(reply))
        return reply


def test_packets_and_envelopes_are_all_that_is_sent_even_when_hosts_fail_or_refuse() -> None:
    app = ClientApp()
    app.query("devices")(lambda message, context: describe(message, {int(context.node_config["partition-id"]): "any"}))

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        (device,) = unpack_requests(message.content)
        if device == 0:
            raise RuntimeError("out of memory")
        refusal = DeviceAnswer(b"", {}, "disk full")
        if device == 2:  # of its two answers one is for a device that is not its own
            return answer(message, lambda asked: {device: good(device, asked[device]), 3: DeviceAnswer(b"x" * 40, {})})
        if device == 4:
            content = RecordDict({"packets": ConfigRecord({"04": b"y" * 30})})
            return Message(content, reply_to=message)
        return answer(message, lambda asked: {device: refusal if device == 1 else good(device, asked[device])})

    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), lambda replies: {}, RoundPolicy(5, 0.4, 1))
    grid = ScaledGrid(app, 5, {})
    strategy.start(grid, num_rounds=1)
    traffic = strategy.traffic
    packets = sum(traffic.uplink.values()) + sum(traffic.downlink.values())
    assert packets + traffic.envelope_bytes == grid.total
    assert traffic.messages == 2 * 5 + 2 * 5


def test_one_device_per_node_needs_no_more_than_a_learn_function_and_the_default_is_the_mean() -> None:
    app = ClientApp()
    app.query("devices")(lambda message, context: describe(message, {int(context.node_config["partition-id"]): "any"}))

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        vote = np.eye(3, dtype=np.float32)[[int(context.node_config["partition-id"]) % 3]]
        return answer_alone(message, context, SHARED, lambda task: np.repeat(vote, len(task.predict), axis=0))

    strategy = FederatedDistillation(ServerExchange(SHARED, per_round=30, rounds=2))
    result = strategy.start(LocalGrid(app, 3, {}), num_rounds=2)
    assert np.allclose(strategy.exchange.cache.labels, 1 / 3, atol=1e-3)
    assert strategy.exchange.acknowledged == dict.fromkeys(range(3), 2)
    assert dict(result.train_metrics_clientapp[2])["answers"] == 3.0


def test_one_device_per_node_answers_a_round_asked_twice_from_what_it_did() -> None:
    learned: list[int] = []

    def learn(task: RoundTask) -> Floats:
        learned.append(task.round_number)
        rows: Floats = np.full((len(task.predict), 3), 1 / 3, dtype=np.float32)
        return rows

    exchange = ServerExchange(SHARED, per_round=10, rounds=2)
    context = Context(1, 1, {}, RecordDict(), {})
    packets = []
    for number in (1, 1, 2, 2):
        message = Message(pack_requests({0: exchange.request(0, number)}), 1, "train.distill")
        (answered,) = unpack_answers(answer_alone(message, context, SHARED, learn).content).values()
        packets.append(answered.packet)
        if len(packets) == 2:
            exchange.accept(0, 1, answered.packet)
            exchange.publish(1, exchange.ids(1), np.full((10, 3), 1 / 3, dtype=np.float32))
    assert learned == [1, 2]
    assert packets[0] == packets[1]
    assert packets[2] == packets[3] != packets[0]


def test_labels_that_last_are_not_asked_for_again_by_the_default_strategy() -> None:
    asked: list[int] = []
    app = ClientApp()
    app.query("devices")(lambda message, context: describe(message, {0: "any"}))

    def learn(task: RoundTask) -> Floats:
        asked.append(len(task.predict))
        return np.full((len(task.predict), 3), 1 / 3, dtype=np.float32)

    app.train("distill")(lambda message, context: answer_alone(message, context, SHARED, learn))
    strategy = FederatedDistillation(ServerExchange(SHARED, per_round=30, rounds=6, duration=3))
    result = strategy.start(LocalGrid(app, 1, {}), num_rounds=6)
    assert asked == [30, 0, 0, 30, 0, 0]
    assert dict(result.train_metrics_clientapp[2]) == {"answers": 1.0, "covered": 1.0}


def test_a_round_asks_only_the_active_devices_and_all_in_turn_catch_up() -> None:
    asked: list[int] = []

    def noting(device: int, request: bytes) -> DeviceAnswer:
        asked.append(device)
        return good(device, request)

    seen: list[RoundReplies] = []
    exchange = ServerExchange(SHARED, per_round=10, rounds=4)
    strategy = FederatedDistillation(
        exchange, keep_in(seen), RoundPolicy(6, 1.0, timeout=1, active=3, seed=SHARED.seed)
    )
    strategy.start(LocalGrid(hosts(noting), 3, {}), num_rounds=4)
    assert [len(replies.votes) for replies in seen] == [3] * 4
    assert all(not replies.refused for replies in seen)
    assert len(asked) == 12
    assert len(set(asked)) > 3
    assert {tuple(replies.votes) for replies in seen} == {
        tuple(participants(SHARED.seed, number, range(6), 3)) for number in range(1, 5)
    }


def test_answers_of_devices_that_the_round_did_not_ask_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    def both(asked: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        (device,) = asked
        return {one: good(one, asked[device]) for one in (device // 2 * 2, device // 2 * 2 + 1)}

    seen: list[RoundReplies] = []
    policy = RoundPolicy(6, 1.0, timeout=1, active=2, seed=SHARED.seed)
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), policy)
    strategy.start(LocalGrid(answering(both), 3, {}), num_rounds=1)
    asked = participants(SHARED.seed, 1, range(6), 2)
    assert list(seen[0].votes) == asked
    assert set(strategy.traffic.uplink) == set(asked)
    assert "which was not asked there" in caplog.text


def test_the_quorum_is_a_share_of_the_asked_devices() -> None:
    first = participants(SHARED.seed, 1, range(6), 2)[0]

    def one_breaks(device: int, request: bytes) -> DeviceAnswer:
        return DeviceAnswer(b"", {}, "broken") if device == first else good(device, request)

    policy = RoundPolicy(6, 1.0, timeout=1, active=2, seed=SHARED.seed)
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in([]), policy)
    with pytest.raises(QuorumError, match="1 usable answers from 2 devices, the quorum is 2"):
        strategy.start(LocalGrid(hosts(one_breaks), 3, {}), num_rounds=1)


def test_start_resumes_at_its_first_round() -> None:
    seen: list[RoundReplies] = []
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 3), keep_in(seen), first_round=3)
    strategy.start(LocalGrid(hosts(good), 3, {}), num_rounds=3)
    assert [replies.round_number for replies in seen] == [3]


def test_hosts_that_all_fail_end_the_run_instead_of_being_waited_for() -> None:
    app = ClientApp()

    @app.query("devices")
    def devices(message: Message, context: Context) -> Message:
        raise RuntimeError("no disk")

    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), policy=RoundPolicy(6, 0.5, timeout=60))
    with pytest.raises(QuorumError, match="no host can tell its devices: RuntimeError: no disk"):
        strategy.start(LocalGrid(app, 2, {}), num_rounds=1)


def test_an_unknown_node_answers_with_an_error_not_an_exception() -> None:
    grid = LocalGrid(hosts(good), 1, {})
    (reply,) = grid.send_and_receive([Message(RecordDict(), 99, "query.devices")])
    assert reply.has_error()


class Losing(LocalGrid):
    """Loses the first messages of each round to a node, which is then away for a while, and may never come back."""

    def __init__(self, app: ClientApp, losses: int, *, comes_back: bool = True) -> None:
        super().__init__(app, 3, {})
        self.losses = losses
        self.comes_back = comes_back
        self.absent = 0

    def get_node_ids(self) -> list[int]:
        nodes = list(super().get_node_ids())
        self.absent -= 1
        return nodes[1:] if self.absent >= 0 else nodes

    def _deliver(self, message: Message) -> Message:
        first = message.metadata.dst_node_id == min(super().get_node_ids())
        if first and message.metadata.message_type == "train.distill" and self.losses > 0:
            self.losses -= 1
            self.absent = 1 if self.comes_back else 10**9
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
        return super()._deliver(message)


def run_losing(grid: Losing, attempts: int) -> tuple[FederatedDistillation, RoundReplies]:
    seen: list[RoundReplies] = []
    policy = RoundPolicy(6, 0.5, timeout=60, attempts=attempts, absence=0.1 if not grid.comes_back else 60)
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), policy)
    strategy.start(grid, num_rounds=1)
    return strategy, seen[0]


def test_a_host_that_gets_lost_is_asked_again_when_it_is_back() -> None:
    undisturbed, replies = run_losing(Losing(hosts(good), 0), attempts=3)
    disturbed, again = run_losing(Losing(hosts(good), 2), attempts=3)
    assert list(again.votes) == [0, 1, 2, 3, 4, 5]
    for device, labels in replies.votes.items():
        assert np.array_equal(again.votes[device].probabilities, labels.probabilities)
    assert disturbed.traffic.uplink == undisturbed.traffic.uplink
    assert disturbed.traffic.downlink == undisturbed.traffic.downlink
    # What was sent in vain, its packets too, is transport.
    assert disturbed.traffic.messages == undisturbed.traffic.messages + 4
    assert disturbed.traffic.envelope_bytes > undisturbed.traffic.envelope_bytes


class Deaf(LocalGrid):
    """Takes the first messages of a round to a node and never answers them."""

    def __init__(self, app: ClientApp, misses: int) -> None:
        super().__init__(app, 3, {})
        self.misses = misses

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        asked, first = list(messages), min(self.get_node_ids())
        missed = [
            one for one in asked if one.metadata.dst_node_id == first and one.metadata.message_type != "query.devices"
        ]
        if missed and self.misses > 0:
            self.misses -= 1
            asked = [one for one in asked if one not in missed]
        return super().send_and_receive(asked, timeout=timeout)


def run_deaf(misses: int, attempts: int) -> tuple[FederatedDistillation, RoundReplies]:
    seen: list[RoundReplies] = []
    policy = RoundPolicy(6, 0.5, timeout=60, attempts=attempts, silence=0.1)
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), policy)
    strategy.start(Deaf(hosts(good), misses), num_rounds=1)
    return strategy, seen[0]


def test_a_host_that_says_nothing_is_asked_again() -> None:
    undisturbed, replies = run_deaf(0, attempts=3)
    disturbed, again = run_deaf(2, attempts=3)
    assert list(again.votes) == list(replies.votes) == [0, 1, 2, 3, 4, 5]
    assert disturbed.traffic.uplink == undisturbed.traffic.uplink
    assert disturbed.traffic.downlink == undisturbed.traffic.downlink


def test_a_host_that_never_says_anything_is_absent() -> None:
    _, replies = run_deaf(9, attempts=3)
    assert replies.refused == {0: "no answer", 1: "no answer"}


def test_a_host_is_asked_no_more_often_than_the_policy_says() -> None:
    _, replies = run_losing(Losing(hosts(good), 2), attempts=2)
    assert replies.refused == {0: "no answer", 1: "no answer"}


def test_a_host_that_does_not_come_back_holds_up_the_round_for_its_absence_alone() -> None:
    _, replies = run_losing(Losing(hosts(good), 1, comes_back=False), attempts=5)
    assert list(replies.votes) == [2, 3, 4, 5]


def test_a_host_that_raises_is_not_asked_again() -> None:
    calls: list[int] = []

    def broken(device: int, request: bytes) -> DeviceAnswer:
        if device == 0:
            calls.append(device)
            raise RuntimeError("out of memory")
        return good(device, request)

    run_losing(Losing(hosts(broken), 0), attempts=3)
    assert calls == [0]


def test_a_host_that_claims_anothers_device_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(hosts(good), 3, {})
    nodes = list(grid.get_node_ids())
    classes = ["big", "small", "big", "small", "tiny", "small"]  # 3 is another host's, 4 of another class than claimed
    places = [0, 0, 1, 0, 2, 2]
    owners = {device: Owner(nodes[place], classes[device]) for device, place in enumerate(places)}
    seen: list[RoundReplies] = []
    policy = RoundPolicy(6, 0.5, timeout=60, owners=owners)
    FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), policy).start(grid, num_rounds=1)
    assert list(seen[0].votes) == [0, 1, 2, 5]
    assert "claims device 3, which is not its own" in caplog.text
    assert seen[0].device_classes == {0: "big", 1: "small", 2: "big", 5: "small"}


def test_a_reply_under_another_hosts_name_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Forging(LocalGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            for reply in replies:
                if reply.metadata.message_type == "train.distill" and reply.metadata.src_node_id == first:
                    reply.metadata.__dict__["_src_node_id"] = second
            return replies

    seen: list[RoundReplies] = []
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in(seen), RoundPolicy(6, 0.5, 1))
    grid = Forging(hosts(good), 3, {})
    first, second, _ = sorted(grid.get_node_ids())
    strategy.start(grid, num_rounds=1)
    assert list(seen[0].votes) == [2, 3, 4, 5]
    assert f"claims to be of host {second}" in caplog.text


def test_a_host_that_does_not_tell_its_devices_is_not_waited_for_as_long_as_for_a_round() -> None:
    asked: list[tuple[str, float, float]] = []

    class Noting(LocalGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            sent = list(messages)
            asked.extend((message.metadata.message_type, message.metadata.ttl, timeout or 0) for message in sent)
            return super().send_and_receive(sent, timeout=timeout)

    policy = RoundPolicy(6, 0.5, timeout=7200, ttl=7200)
    strategy = FederatedDistillation(ServerExchange(SHARED, 10, 1), keep_in([]), policy)
    strategy.start(Noting(hosts(good), 3, {}), num_rounds=1)
    questions = [(ttl, timeout) for kind, ttl, timeout in asked if kind == "query.devices"]
    assert questions == [(QUERY_LIMIT, QUERY_LIMIT)] * 3
    assert all(timeout > QUERY_LIMIT for kind, _, timeout in asked if kind == "train.distill")


def test_an_absent_device_is_told_apart_and_what_it_holds_is_as_before() -> None:
    requests: list[int] = []
    disks: dict[int, LabelCache] = {}

    def away_in_the_second_round(device: int, request: bytes) -> DeviceAnswer:
        if device == 0:
            requests.append(len(request))
            if len(requests) == 2:
                return DeviceAnswer(b"", {}, absence="too hot")
        return good(device, request, disks)

    seen: list[RoundReplies] = []
    exchange = ServerExchange(SHARED, per_round=10, rounds=3)
    exchange.publish(0, np.arange(30), np.full((30, 3), 1 / 3, np.float32))
    strategy = FederatedDistillation(exchange, keep_in(seen), RoundPolicy(6, 0.5, 1))
    strategy.start(LocalGrid(hosts(away_in_the_second_round), 3, {}), num_rounds=3)
    assert [replies.refused for replies in seen] == [{}, {0: "absent: too hot"}, {}]
    assert 0 in seen[2].votes
    assert requests[2] <= requests[1] < requests[0] - 30  # not everything anew, as after a refusal
