"""Rounds in virtual time with devices that answer by the real exchange and learn nothing: seconds, not minutes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedstill.cache import LabelCache
from fedstill.consensus import Votes, mean
from fedstill.errors import QuorumError
from fedstill.exchange import ServerExchange, close_task, open_request
from fedstill.flower import DeviceAnswer, RoundPolicy, answer, describe
from fedstill.packet import Context as Shared
from fedstill.rounds import RoundReplies
from fedstill.soft_labels import SoftLabels, soft_labels
from simulations.engines.local import LocalGrid
from simulations.fleet.clock import Speeds, Trip
from simulations.fleet.course import Fleet
from simulations.fleet.settings import FleetSettings
from simulations.fleet.strategy import TimedDistillation
from simulations.fleet.timekeeper import Timekeeper, UnderWay

SHARED = Shared(seed=1, proxy_digest=b"abcdefgh", proxy_size=30, classes=3)
DEVICES = 6
SAMPLES = 100.0
LINK = {"up_kbit_per_second": 1000, "down_kbit_per_second": 1000}
FAST = {"train_samples_per_second": 100, "predict_samples_per_second": 1000, **LINK}  # about a second a round
SLOW = {"train_samples_per_second": 10, "predict_samples_per_second": 1000, **LINK}  # about ten


def fleet(fast: Mapping[str, Any] = FAST, slow: Mapping[str, Any] = SLOW, **rounds: Any) -> FleetSettings:
    return FleetSettings.model_validate({"classes": {"fast": fast, "slow": slow}, "rounds": rounds})


class Run:
    """A run whose server takes the mean; devices 0 to 3 are fast, 4 and 5 slow."""

    def __init__(self, settings: FleetSettings, *, quorum: float = 0.5, active: int = 0, duration: int = 0) -> None:
        policy = RoundPolicy(DEVICES, quorum, timeout=60, active=active, seed=1)
        kinds = ["fast"] * 4 + ["slow"] * 2
        speeds = {
            name: Speeds(found.train_samples_per_second or 0, found.predict_samples_per_second or 0)
            for name, found in settings.classes.items()
        }
        self.exchange = ServerExchange(SHARED, 10, 100, duration=duration, independent=duration > 0)
        self.clock = Timekeeper(Fleet(settings, kinds, speeds, 1, policy.needed(DEVICES), active))
        self.disks: dict[int, LabelCache] = {}
        self.asked: dict[int, dict[int, LabelCache]] = {}
        self.seen: list[RoundReplies] = []
        self.rows: list[dict[str, Any]] = []
        self.app = ClientApp()
        self.app.query("devices")(lambda message, context: describe(message, dict(enumerate(kinds))))
        self.app.train("distill")(self._distill)
        self.strategy = TimedDistillation(self.clock, self.exchange, self._conclude, policy, 1)
        self.told: list[int] = []
        self.strategy.asking = self.told.append

    def rounds(self, count: int) -> "Run":
        self.strategy.start(LocalGrid(self.app, 1, {}), num_rounds=count)
        return self

    def _distill(self, message: Message, context: Context) -> Message:
        return answer(message, lambda asked: {device: self._work(device, found) for device, found in asked.items()})

    def _work(self, device: int, request: bytes) -> DeviceAnswer:
        task = open_request(SHARED, self.disks.get(device, LabelCache.empty(30, 3)), request)
        self.disks[device] = task.cache
        self.asked.setdefault(task.round_number, {})[device] = task.cache
        rng = np.random.default_rng([device, task.round_number])
        rows = rng.dirichlet(np.ones(3), len(task.predict)).astype(np.float32)
        content = close_task(SHARED, task, soft_labels(task.predict, rows), "float16")
        return DeviceAnswer(content, {"samples": SAMPLES})

    def _conclude(self, replies: RoundReplies[SoftLabels]) -> dict[str, float]:
        self.seen.append(replies)
        self.rows.append(self.clock.row()["virtual"])
        ids, labels, again = [], [], []
        if replies.votes:
            ids.append(replies.ids)
            labels.append(mean(Votes.stack(replies.ids, replies.votes)).labels)
        for earlier in replies.reopened:
            kept = self.exchange.changeable(replies.round_number, earlier.ids)
            again.append(earlier.ids[kept])
            labels.append(mean(Votes.stack(earlier.ids, earlier.votes)).labels[kept])
        everything = np.concatenate([*ids, *again, np.zeros(0, dtype=np.int64)])
        order = np.argsort(everything)
        rows = np.concatenate([*labels, np.zeros((0, 3), dtype=np.float32)])[order]
        old = np.concatenate(again) if again else None
        self.exchange.publish(replies.round_number, everything[order], rows, old)
        return {}

    def count(self, key: str) -> list[tuple[int, int]]:
        return [tuple(row["device_classes"][name][key] for name in ("fast", "slow")) for row in self.rows]


def test_a_synchronous_round_waits_for_the_slowest() -> None:
    run = Run(fleet()).rounds(2)
    assert [len(replies.votes) for replies in run.seen] == [6, 6]
    assert [row["round_seconds"] for row in run.rows] == [pytest.approx(10, abs=0.1)] * 2
    assert run.rows[1]["begin_seconds"] == run.rows[0]["end_seconds"]
    assert run.clock.stored()["under_way"] == {}


def test_a_deadline_ends_the_round_and_late_answers_change_the_round_that_asked_them() -> None:
    run = Run(fleet(policy="deadline", deadline_seconds=6)).rounds(4)
    assert [row["round_seconds"] for row in run.rows] == pytest.approx([6, 4, 6, 4], abs=0.2)
    assert run.count("deadline_misses") == [(0, 2), (0, 0), (0, 2), (0, 0)]
    assert list(run.seen[0].votes) == [0, 1, 2, 3]
    second = run.seen[1]
    assert list(second.votes) == [0, 1, 2, 3]
    (again,) = second.reopened
    assert again.round_number == 1
    assert again.ids.tolist() == run.seen[0].ids.tolist()
    assert list(again.votes) == [0, 1, 2, 3, 4, 5]
    assert again.new == {4, 5}
    assert second.answers == 6
    assert run.count("late_answers") == [(0, 0), (0, 2), (0, 0), (0, 2)]


def test_a_device_at_work_is_not_asked_again_and_catches_up_later() -> None:
    run = Run(fleet(policy="deadline", deadline_seconds=6)).rounds(6)
    asked = {number: set(found) for number, found in run.asked.items()}
    assert asked[1] == {0, 1, 2, 3, 4, 5}
    assert asked[2] == {0, 1, 2, 3}
    assert asked[3] == asked[1]
    assert run.told == [len(asked[number]) for number in range(1, 7)]
    assert [run.clock.rounds_of(device) for device in (0, 4)] == [(1, 2, 3, 4, 5, 6), (1, 3, 5)]
    restored = Timekeeper(run.clock.fleet)
    restored.restore(run.clock.stored())
    assert restored.rounds_of(4) == (1, 3, 5)
    assert not [replies.refused for replies in run.seen if replies.refused]
    newest = {cache.checksum for cache in run.asked[max(asked)].values()}
    assert len(newest) == 1


@pytest.mark.parametrize("duration", [0, 4])
@pytest.mark.parametrize(
    "rounds",
    [{"policy": "deadline", "deadline_seconds": 3.0}, {"policy": "buffered", "buffer": 3}],
)
def test_every_device_that_is_asked_holds_the_servers_cache(rounds: dict[str, Any], duration: int) -> None:
    run = Run(fleet(**rounds), duration=duration).rounds(12)
    assert not [replies.refused for replies in run.seen if replies.refused]
    assert any(replies.reopened for replies in run.seen)
    caches = {number: {cache.checksum for cache in found.values()} for number, found in run.asked.items()}
    assert all(len(found) == 1 for found in caches.values())


def test_a_buffered_round_ends_with_k_answers_to_whatever_request() -> None:
    run = Run(fleet(policy="buffered", buffer=4)).rounds(14)
    assert all(replies.answers >= 4 for replies in run.seen)
    assert any(row["staleness"] > 0 for row in run.rows)
    assert run.rows[-1]["end_seconds"] < 3 * 10
    voters = {device for replies in run.seen for found in replies.reopened for device in found.new}
    assert voters == {4, 5}


def test_an_answer_that_is_too_late_is_not_used() -> None:
    slower = {**SLOW, "train_samples_per_second": 2}
    run = Run(fleet(slow=slower, policy="buffered", buffer=4, staleness=3)).rounds(60)
    assert sum(late for _, late in run.count("unused_answers")) == 2
    assert sum(late for _, late in run.count("late_answers")) == 0
    assert not any(replies.reopened for replies in run.seen)
    assert {4, 5} <= {device for replies in run.seen for device in replies.metrics}


def test_below_the_quorum_a_deadline_waits_on() -> None:
    run = Run(fleet(policy="deadline", deadline_seconds=0.5), quorum=0.9).rounds(1)
    assert run.seen[0].answers == 6
    assert run.rows[0]["round_seconds"] > 9


def test_below_the_quorum_the_run_ends_and_says_what_would_help() -> None:
    run = Run(fleet(fast={**FAST, "failure": 0.99}), quorum=0.9)
    with pytest.raises(QuorumError, match="answers of 6 devices that were asked, the quorum is 6; begin anew"):
        run.rounds(1)


def test_a_buffer_or_deadline_of_another_policy_changes_nothing() -> None:
    plain, other = Run(fleet()).rounds(2), Run(fleet(buffer=1, deadline_seconds=1)).rounds(2)
    assert plain.rows == other.rows


def test_who_fails_got_its_request_answers_nothing_and_does_as_if_it_had_not_been_asked() -> None:
    run = Run(fleet(fast={**FAST, "failure": 0.4}), quorum=0.3).rounds(4)
    failed = [{int(device) for device in replies.refused} for replies in run.seen]
    assert any(failed)
    for number, lost in enumerate(failed, start=1):
        assert set(run.asked[number]).isdisjoint(lost)
        assert run.seen[number - 1].votes.keys().isdisjoint(lost)
    assert [sum(counts) for counts in run.count("failed")] == [len(lost) for lost in failed]
    first = next(iter(failed[0] or failed[1] or failed[2]))
    requests = sum(first in found for found in run.asked.values())
    assert run.strategy.traffic.downlink[first] > 0
    assert requests < 4


def test_who_is_away_is_not_asked_and_the_server_waits_for_a_quorum() -> None:
    night = {"availability": {"pattern": "daily", "from_hour": 22, "to_hour": 23}}
    settings = fleet(fast={**FAST, **night})
    run = Run(settings, quorum=0.5).rounds(2)
    assert run.rows[0]["waited_seconds"] == pytest.approx(22 * 3600)
    assert run.count("offline")[0] == (0, 0)
    day = Run(settings, quorum=0.3).rounds(1)
    assert day.rows[0]["waited_seconds"] == 0
    assert day.count("offline") == [(4, 0)]
    assert list(day.seen[0].votes) == [4, 5]


def test_a_fleet_that_is_never_there_ends_the_run_with_a_reason() -> None:
    never = {"churn": {"join_hours": 9000.0}}
    run = Run(fleet(fast={**FAST, **never}, slow={**SLOW, **never}), quorum=1)
    with pytest.raises(QuorumError, match="never 6 devices at the same time"):
        run.rounds(1)


def test_a_fleet_that_never_meets_is_told_so_however_often_its_devices_come_and_go() -> None:
    minute = {"availability": {"pattern": "duty-cycle", "period_seconds": 60, "share": 0.1}}
    clock = Timekeeper(Fleet(fleet(fast={**FAST, **minute}), ["fast"] * 1000, {}, 1, quorum=500))
    with pytest.raises(QuorumError, match=r"never 500 devices at the same time within 0\.\d+ days.*1,000,000 times"):
        clock.begin(1, range(1000))


@pytest.mark.parametrize("policy", ["synchronous", "buffered"])
def test_a_part_of_the_devices_is_asked_and_with_a_buffer_at_work(policy: str) -> None:
    rounds: dict[str, Any] = {"policy": policy, **({"buffer": 1} if policy == "buffered" else {})}
    run = Run(fleet(**rounds), active=3, quorum=0.3).rounds(8)
    for row in run.rows:
        asked, busy = (sum(found[key] for found in row["device_classes"].values()) for key in ("asked", "busy"))
        assert asked <= 3
        assert policy == "synchronous" or asked + busy <= 3


def test_energy_is_that_of_work_ways_and_waiting() -> None:
    power = {"compute_watts": 5.0, "network_watts": 0.0, "idle_watts": 1.0}
    run = Run(fleet(fast={**FAST, "power": power}, server_seconds=2)).rounds(2)
    ((fast, slow),) = {tuple(round(value, 0) for value in found) for found in run.count("energy_joules")}
    seconds = run.rows[0]["round_seconds"] + 2
    assert slow == 0
    assert fast == pytest.approx(4 * (5 * 1 + (seconds - 1)), abs=2)
    assert run.rows[1]["begin_seconds"] == pytest.approx(seconds)


def test_who_has_yet_to_fail_is_at_work_until_then() -> None:
    slower = {**SLOW, "train_samples_per_second": 0.1, "failure": 0.6}  # about a thousand seconds a round
    run = Run(fleet(slow=slower, policy="deadline", deadline_seconds=6), quorum=0.3).rounds(8)
    asked, failed = (sum(slow for _, slow in run.count(key)) for key in ("asked", "failed"))
    assert failed > 0
    assert asked == 2  # the eight rounds are over before one of them is done
    assert [slow for _, slow in run.count("busy")][-1] == 2
    restored = Timekeeper(run.clock.fleet)
    restored.restore(run.clock.stored())
    assert restored.stored() == run.clock.stored()
    assert restored.begin(9, range(DEVICES)) == [0, 1, 2, 3]


def test_who_answered_before_the_round_began_is_asked_again_and_both_answers_count() -> None:
    run = Run(fleet(policy="deadline", deadline_seconds=6, server_seconds=100)).rounds(3)
    assert run.count("asked") == [(4, 2)] * 3
    assert run.count("busy") == [(0, 0)] * 3
    assert run.count("late_answers") == [(0, 0), (0, 2), (0, 2)]
    assert [replies.answers for replies in run.seen] == [4, 6, 6]
    assert [list(found.votes) for replies in run.seen[1:] for found in replies.reopened] == [[*range(DEVICES)]] * 2


def test_the_server_waits_for_a_device_that_is_at_work() -> None:
    clock = Run(fleet(), quorum=0.3).clock
    labels = soft_labels(np.arange(2), np.full((2, 3), 1 / 3, dtype=np.float32))
    clock.under_way[4] = UnderWay(1, Trip(0.0, 1.0, 49.0, 49.0, 50.0), labels, {"samples": SAMPLES})
    assert clock.begin(2, [4]) == [4]  # the quorum is two answers


def test_who_fails_alone_of_its_class_works_as_long_as_it_would_have() -> None:
    power = {"compute_watts": 10.0, "network_watts": 0.0, "idle_watts": 0.0}
    run = Run(fleet(slow={**SLOW, "failure": 0.99, "power": power})).rounds(3)
    assert run.count("failed") == [(0, 2)] * 3
    shares = [run.clock.fails(device, number) or 0.0 for number in (1, 2, 3) for device in (4, 5)]
    energy = [slow for _, slow in run.count("energy_joules")]
    assert sum(energy) == pytest.approx(10 * 10 * sum(shares), rel=0.01)
    assert all(row["round_seconds"] > 10 * max(shares[2 * place : 2 * place + 2]) for place, row in enumerate(run.rows))
