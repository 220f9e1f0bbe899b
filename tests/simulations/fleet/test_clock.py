import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.fleet.availability import Presence
from simulations.fleet.clock import (
    Speeds,
    Work,
    compute_seconds,
    end_of_round,
    failed_trip,
    failure,
    idle_seconds,
    slowness,
    trip,
    working_joules,
)
from simulations.fleet.settings import FleetClassSettings, PowerSettings, RoundEndSettings, StragglerSettings

KIND = FleetClassSettings(
    train_samples_per_second=100,
    predict_samples_per_second=1000,
    up_kbit_per_second=80,
    down_kbit_per_second=800,
    latency_ms=500,
    power=PowerSettings(compute_watts=5, network_watts=2, idle_watts=1),
)
SPEEDS = Speeds(100, 1000)
ALWAYS = math.inf
TIMES = st.lists(st.floats(0, 1000), max_size=12)


def present(*windows: tuple[float, float]) -> Presence:
    return Presence(iter(windows))


def test_an_answer_takes_its_ways_its_work_and_nothing_else() -> None:
    work = Work(down=10_000, up=5000, trained=300, predicted=200)
    seconds = compute_seconds(work, SPEEDS, slowness=2)
    way = trip(100.0, work, KIND, seconds, present((0, ALWAYS)))
    assert seconds == pytest.approx(2 * (3 + 0.2))
    assert way.received == pytest.approx(100 + 0.5 + 0.1)
    assert way.computed == way.left == pytest.approx(100.6 + 6.4)
    assert way.arrived == pytest.approx(107 + 0.5 + 0.5)
    assert working_joules(way, KIND.power) == pytest.approx(5 * 6.4 + 2 * 1.6)
    assert idle_seconds(present((0, ALWAYS)), [way], 90, 120) == pytest.approx(30 - 8)


def test_a_device_that_is_away_when_it_has_computed_sends_when_it_is_back() -> None:
    work = Work(1000, 1000, 100, 0)
    back = trip(0.0, work, KIND, 1.0, present((0, 1), (50, 60)))
    assert back.left == 50
    assert back.arrived == pytest.approx(50.6)
    gone = trip(0.0, work, KIND, 1.0, present((0, 1)))
    assert math.isinf(gone.arrived)
    assert working_joules(gone, KIND.power) == pytest.approx(5 + 2 * 0.51)
    assert idle_seconds(present((0, 1), (50, 60)), [back], 0, 60) == pytest.approx(10 - 0.6)


def test_a_device_that_fails_sends_nothing() -> None:
    way = failed_trip(10.0, 10_000, KIND, 2.0)
    assert way.arrived == way.computed == pytest.approx(12.6)
    assert working_joules(way, KIND.power) == pytest.approx(2 * 0.6 + 5 * 2)


@settings(deadline=None)
@given(
    small=st.integers(0, 10**6),
    more=st.integers(0, 10**6),
    seconds=st.floats(0, 1e5),
    longer=st.floats(0, 1e5),
    begins=st.lists(st.floats(0, 1e5), max_size=5),
)
def test_more_bytes_or_work_never_come_earlier(
    small: int, more: int, seconds: float, longer: float, begins: list[float]
) -> None:
    windows = [(0.0, 10.0), *((20.0 + begin, 20.0 + begin + 1) for begin in sorted(begins)), (3e5, ALWAYS)]
    apart = [one for one, after in zip(windows, [*windows[1:], (ALWAYS, ALWAYS)], strict=True) if one[1] <= after[0]]
    less = trip(5.0, Work(small, small, 0, 0), KIND, seconds, present(*apart))
    larger = trip(5.0, Work(small + more, small + more, 0, 0), KIND, seconds + longer, present(*apart))
    assert less.asked < less.received <= less.computed <= less.left < less.arrived
    assert larger.arrived >= less.arrived
    assert working_joules(larger, KIND.power) >= working_joules(less, KIND.power) >= 0


@given(settled=TIMES, earlier=TIMES, quorum=st.integers(1, 12), limit=st.floats(1, 1000), begin=st.floats(0, 100))
def test_a_round_ends_by_its_policy_and_never_below_what_it_needs_while_more_can_come(
    settled: list[float], earlier: list[float], quorum: int, limit: float, begin: float
) -> None:
    settled = [begin + time for time in settled]
    usable = [*settled, *earlier]
    waits = end_of_round(RoundEndSettings(), quorum, begin, settled, usable)
    assert waits == max([begin, *settled])
    deadline = RoundEndSettings(policy="deadline", deadline_seconds=limit)
    ended = end_of_round(deadline, quorum, begin, settled, usable)
    come = sum(time <= ended for time in usable)
    assert ended >= begin
    assert come >= min(quorum, len(usable))
    assert ended <= max(begin + limit, sorted(usable)[quorum - 1] if len(usable) >= quorum else math.inf)
    assert ended <= max(waits, *usable, begin)
    buffered = end_of_round(RoundEndSettings(policy="buffered", buffer=quorum), 1, begin, settled, usable)
    assert buffered >= begin
    assert sum(time <= buffered for time in usable) >= min(quorum, len(usable))
    if len(usable) >= quorum:
        assert buffered == max(begin, sorted(usable)[quorum - 1])


def test_who_never_comes_back_is_not_waited_for() -> None:
    assert end_of_round(RoundEndSettings(), 1, 0.0, [3.0, math.inf], [3.0, math.inf]) == 3.0
    assert end_of_round(RoundEndSettings(policy="buffered", buffer=2), 1, 0.0, [3.0], [3.0, math.inf]) == 3.0


def test_draws_follow_from_seed_device_and_round() -> None:
    stragglers = StragglerSettings(share=0.3, factor=4, spread=0.5)
    drawn = [slowness(stragglers, 1, device, number) for device in range(20) for number in range(5)]
    assert drawn == [slowness(stragglers, 1, device, number) for device in range(20) for number in range(5)]
    assert drawn != [slowness(stragglers, 2, device, number) for device in range(20) for number in range(5)]
    own = [min(drawn[5 * device : 5 * device + 5]) for device in range(20)]
    slow = [time > 3.9 * own[place // 5] for place, time in enumerate(drawn)]
    assert 15 < sum(slow) < 45
    assert slowness(StragglerSettings(), 1, 0, 0) == 1
    fails = [failure(0.2, 1, device, number) for device in range(20) for number in range(20)]
    assert 50 < sum(share is not None for share in fails) < 110
    assert all(0 <= share < 1 for share in fails if share is not None)
    assert failure(0.0, 1, 0, 0) is None
