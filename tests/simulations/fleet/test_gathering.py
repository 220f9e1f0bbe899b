import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.fleet import gathering
from simulations.fleet.availability import Presence, Window
from simulations.fleet.gathering import gathered

TIMES = st.lists(st.integers(0, 40), unique=True, max_size=12).map(sorted)


def windows(times: list[int]) -> list[Window]:
    """Neighbours of which every other pair may touch the next: whole numbers, so that devices change at once."""
    return [(float(begin), float(end)) for begin, end in pairwise(times)][:: 1 if len(times) % 2 else 2]


@given(devices=st.lists(TIMES.map(windows), max_size=5), data=st.data())
def test_the_first_time_at_which_enough_are_there_is_found(devices: list[list[Window]], data: st.DataObject) -> None:
    free = {device: data.draw(st.integers(0, 30)) + 0.0 for device in range(len(devices))}
    wanted, since = data.draw(st.integers(1, 4)), float(data.draw(st.integers(0, 20)))
    until = since + data.draw(st.integers(0, 30))
    presences = {device: Presence(iter(found)) for device, found in enumerate(devices)}

    def there(time: float) -> int:
        return sum(
            free[device] <= time and any(begin <= time < end for begin, end in found)
            for device, found in enumerate(devices)
        )

    times = [float(time) for time in range(int(since), int(until) + 1)]
    expected = next((time for time in times if there(time) >= wanted), None)
    assert gathered(presences, free, wanted, since, until)[0] == expected


def test_a_wait_ends_after_so_many_comings_and_goings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "CHANGES", 10)
    endless = ((float(time), time + 0.5) for time in range(10**9))
    presences = {0: Presence(endless), 1: Presence(iter([(1e4, 1e5)]))}
    often = {0: Presence((float(time), time + 0.5) for time in range(10**9))}
    never = {1: Presence((time + 0.6, time + 0.9) for time in range(10**9))}
    found, looked = gathered(often | never, {0: 0.0, 1: 0.0}, 2, 0, 10**9)
    assert found is None
    assert 2 < looked < 10
    assert gathered(presences, {0: 0.0, 1: 0.0}, 2, 0, 10**9)[0] == 1e4, "what comes and goes before is passed over"


def test_a_wait_for_more_devices_than_there_are_ends_at_once() -> None:
    always = Presence(iter([(0.0, math.inf)]))
    assert gathered({0: always}, {0: 0.0}, 2, 0, 100) == (None, 100)
    assert gathered({}, {}, 1, 0, 100) == (None, 100)
    left = Presence(iter([(0.0, 3.0)]))
    assert gathered({0: always, 1: left}, {0: 0.0, 1: 5.0}, 2, 0, 100) == (None, 100)
