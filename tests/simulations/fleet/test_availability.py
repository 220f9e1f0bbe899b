import math
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.fleet.availability import HOUR, Presence, intersection, membership, pattern
from simulations.fleet.settings import AvailabilitySettings, ChurnSettings

DAY = 24 * HOUR
PATTERNS = st.one_of(
    st.just(AvailabilitySettings()),
    st.builds(
        lambda begin, length, spread: AvailabilitySettings(
            pattern="daily", from_hour=begin, to_hour=(begin + length) % 24, spread_hours=spread
        ),
        st.integers(0, 23),
        st.integers(1, 23),
        st.floats(0, 12),
    ),
    st.builds(
        lambda period, share: AvailabilitySettings(pattern="duty-cycle", period_seconds=period, share=share),
        st.floats(3600, 1e5),
        st.floats(0.01, 1),
    ),
)
CHURN = st.builds(
    ChurnSettings,
    join_hours=st.floats(0, 10),
    stay_hours=st.none() | st.floats(0.5, 50),
    away_hours=st.none() | st.floats(0.5, 50),
)


def presence(
    availability: AvailabilitySettings, churn: ChurnSettings, start_hour: float = 0, seed: int = 0
) -> Presence:
    return Presence.of(3, availability, churn, start_hour, seed)


@settings(max_examples=30, deadline=None)
@given(availability=PATTERNS, churn=CHURN, start_hour=st.floats(0, 23.9), seed=st.integers(0, 2**32 - 1))
def test_windows_are_ascending_and_apart_and_begin_in_the_run(
    availability: AvailabilitySettings, churn: ChurnSettings, start_hour: float, seed: int
) -> None:
    own = pattern(availability, start_hour, np.random.default_rng(seed))
    windows = list(islice(intersection(own, membership(churn, np.random.default_rng(seed))), 20))
    assert all(0 <= begin < end for begin, end in windows)
    assert all(before[1] <= after[0] for before, after in pairwise(windows))


@settings(max_examples=30, deadline=None)
@given(
    availability=PATTERNS,
    churn=CHURN,
    seed=st.integers(0, 2**32 - 1),
    times=st.lists(st.floats(0, 4e5), min_size=3, max_size=3),
)
def test_a_device_is_there_when_it_is_said_to_come_and_its_time_adds_up(
    availability: AvailabilitySettings, churn: ChurnSettings, seed: int, times: list[float]
) -> None:
    device = presence(availability, churn, seed=seed)
    first, second, third = sorted(times)
    coming = device.next(first)
    assert coming >= first
    assert math.isinf(coming) or device.there(coming)
    assert device.seconds(first, min(coming, third)) == pytest.approx(0, abs=1e-6)
    whole = device.seconds(first, third)
    assert 0 <= whole <= third - first + 1e-6
    assert device.seconds(first, second) + device.seconds(second, third) == pytest.approx(whole, abs=1e-6)
    assert presence(availability, churn, seed=seed).next(first) == coming


def test_a_nightly_device_is_there_at_night() -> None:
    nights = AvailabilitySettings(pattern="daily", from_hour=22, to_hour=6)
    device = presence(nights, ChurnSettings(), start_hour=20)
    assert [device.there(hour * HOUR) for hour in (0, 1.9, 2, 9.9, 10, 25, 26, 33.9)] == [
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert device.next(12 * HOUR) == 26 * HOUR
    assert device.seconds(0, 10 * DAY) == pytest.approx(80 * HOUR)
    assert presence(nights, ChurnSettings(), start_hour=23).there(0)


def test_devices_have_hours_and_phases_of_their_own() -> None:
    spread = AvailabilitySettings(pattern="daily", spread_hours=3)
    cycle = AvailabilitySettings(pattern="duty-cycle", period_seconds=600, share=0.25)
    for kind in (spread, cycle):
        begins = {Presence.of(device, kind, ChurnSettings(), 12, 0).next(100.0) for device in range(8)}
        assert len(begins) > 4
    assert presence(cycle, ChurnSettings()).seconds(0, 6e4) == pytest.approx(1.5e4, abs=150)


def test_who_joins_late_and_leaves_for_ever_is_gone() -> None:
    device = presence(AvailabilitySettings(), ChurnSettings(join_hours=1, stay_hours=1))
    joined = device.next(0.0)
    assert 0 < joined < HOUR
    assert math.isinf(device.next(1000 * HOUR))
    back = presence(AvailabilitySettings(), ChurnSettings(stay_hours=1, away_hours=1))
    assert math.isfinite(back.next(1000 * HOUR))


@settings(max_examples=50, deadline=None)
@given(
    availability=PATTERNS,
    churn=CHURN,
    seed=st.integers(0, 2**32 - 1),
    times=st.lists(st.floats(0, 4e5), min_size=4, max_size=4),
)
def test_what_is_forgotten_changes_nothing_of_what_comes(
    availability: AvailabilitySettings, churn: ChurnSettings, seed: int, times: list[float]
) -> None:
    past, now, later, last = sorted(times)
    device, other = (presence(availability, churn, seed=seed) for _ in range(2))
    for one in (device, other):
        one.seconds(0, past)
        one.next(later)
    device.forget(now)
    assert len(device) <= len(other)
    for time in (now, later, last):
        assert (device.there(time), device.next(time)) == (other.there(time), other.next(time))
    assert device.seconds(now, last) == other.seconds(now, last)


def test_a_long_run_keeps_few_windows() -> None:
    device = presence(AvailabilitySettings(pattern="duty-cycle", period_seconds=60, share=0.5), ChurnSettings())
    known = []
    for now in range(0, 100_000, 600):
        device.seconds(now, now + 600)
        device.forget(now + 600)
        known.append(len(device))
    assert max(known) <= 2
