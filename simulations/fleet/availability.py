"""When a device can be reached: windows of virtual time, in seconds from the run's begin, ascending and apart."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import count

import numpy as np

from fedstill.rng import stream
from simulations.fleet.settings import AvailabilitySettings, ChurnSettings

Window = tuple[float, float]
HOUR = 3600.0
DAY_HOURS = 24.0


def pattern(settings: AvailabilitySettings, start_hour: float, rng: np.random.Generator) -> Iterator[Window]:
    """Yield the windows of a device that never leaves the fleet, from time 0 on.

    Args:
        settings: of its class.
        start_hour: hour of the day at time 0.
        rng: draws its own hours or phase.
    """
    if settings.pattern == "always" or (settings.pattern == "duty-cycle" and settings.share == 1):
        yield 0.0, math.inf
        return
    if settings.pattern == "daily":
        period = DAY_HOURS * HOUR
        moved = settings.from_hour - start_hour + rng.uniform(-settings.spread_hours, settings.spread_hours)
        first, length = moved * HOUR, (settings.to_hour - settings.from_hour) % DAY_HOURS * HOUR
    else:
        period = settings.period_seconds
        first, length = rng.uniform(0, period), settings.share * period
    first = first % period - period  # a window that began before time 0 may reach beyond it
    for place in count():
        begin, following = first + place * period, first + (place + 1) * period
        end = min(begin + length, following)  # by rounding, a window of nearly all of a period might reach further
        if end > 0:
            yield max(0.0, begin), end


def membership(churn: ChurnSettings, rng: np.random.Generator) -> Iterator[Window]:
    """Yield the windows in which a device belongs to the fleet."""
    begin = rng.uniform(0, churn.join_hours * HOUR)
    while True:
        if churn.stay_hours is None:
            yield begin, math.inf
            return
        end = begin + rng.exponential(churn.stay_hours * HOUR)
        yield begin, end
        if churn.away_hours is None:
            return
        begin = end + rng.exponential(churn.away_hours * HOUR)


def intersection(first: Iterator[Window], second: Iterator[Window]) -> Iterator[Window]:
    """Yield what both windows have in common."""
    one, other = next(first, None), next(second, None)
    while one is not None and other is not None:
        begin, end = max(one[0], other[0]), min(one[1], other[1])
        if begin < end:
            yield begin, end
        if one[1] <= other[1]:
            one = next(first, None)
        else:
            other = next(second, None)


class Presence:
    """When one device can be reached; windows are made as far as somebody asks.

    Args:
        windows: ascending and apart; a window holds its begin and not its end.
    """

    def __init__(self, windows: Iterator[Window]) -> None:
        self._more = windows
        self._begins: list[float] = []
        self._ends: list[float] = []

    @classmethod
    def of(
        cls, device: int, availability: AvailabilitySettings, churn: ChurnSettings, start_hour: float, seed: int
    ) -> "Presence":
        """Return the presence of a device of a run, from the run's seed alone."""
        own = pattern(availability, start_hour, stream(seed, "fleet-pattern", device))
        return cls(intersection(own, membership(churn, stream(seed, "fleet-churn", device))))

    def __len__(self) -> int:
        """Return how many windows are known and not forgotten."""
        return len(self._begins)

    def forget(self, time: float) -> None:
        """Drop the windows that have ended by a time, before which nobody asks from now on."""
        ended = min(bisect_right(self._ends, time), max(0, len(self._ends) - 1))  # the last tells what was made
        del self._begins[:ended]
        del self._ends[:ended]

    def there(self, time: float) -> bool:
        """Return whether the device can be reached at a time."""
        return self.next(time) == time

    def next(self, time: float) -> float:
        """Return the first time from `time` on at which the device can be reached; infinite: never again."""
        self._make(time)
        place = bisect_right(self._begins, time)
        if place and time < self._ends[place - 1]:
            return time
        return self._begins[place] if place < len(self._begins) else math.inf

    def end(self, time: float) -> float:
        """Return when the device can't be reached any more, for a time at which it can."""
        return self._ends[bisect_right(self._begins, time) - 1]

    def seconds(self, begin: float, end: float) -> float:
        """Return how long the device can be reached between two times."""
        if end <= begin:
            return 0.0
        self._make(end)
        total, place = 0.0, max(0, bisect_right(self._begins, begin) - 1)
        while place < len(self._begins) and self._begins[place] < end:
            total += max(0.0, min(end, self._ends[place]) - max(begin, self._begins[place]))
            place += 1
        return total

    def _make(self, time: float) -> None:
        """Make the windows up to the first that begins after `time`."""
        while not self._begins or self._begins[-1] <= time:
            window = next(self._more, None)
            if window is None:
                return
            self._begins.append(window[0])
            self._ends.append(window[1])
