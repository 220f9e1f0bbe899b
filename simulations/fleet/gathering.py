"""When enough devices are there at the same time: a sweep over their comings and goings in virtual time."""

import heapq
import math
from collections.abc import Iterator, Mapping
from itertools import islice

from simulations.fleet.availability import Presence

CHANGES = 1_000_000
"""Comings and goings that a sweep looks at: those of 1,000 devices that turn up daily for more than a year."""


def gathered(
    presences: Mapping[int, Presence], free: Mapping[int, float], wanted: int, since: float, until: float
) -> tuple[float | None, float]:
    """Return when so many devices are there, and how far was looked.

    Where many devices come and go by the minute and those that lack come at night, the minutes before are passed over:
    after as many changes as there are devices the sweep goes on when as many as lack then can be back.

    Args:
        presences: of each device.
        free: when each one is not at work any more, in seconds from the run's begin.
        wanted: devices that are to be there.
        since: when the wait begins.
        until: when it ends.

    Returns:
        the first time, from `since` to `until`, at which `wanted` devices that are free can be reached, None if there
        is none; and the time until which that is sure: `until`, or where `CHANGES` were seen before.
    """
    now, looked = since, 0
    while looked < CHANGES:
        returns = {device: presences[device].next(max(now, time)) for device, time in free.items()}
        coming = sorted(time for time in returns.values() if time > now)
        lacking = wanted - (len(returns) - len(coming))
        if lacking <= 0:
            return now, now
        if lacking > len(coming) or coming[lacking - 1] > until:
            return None, until
        start = coming[lacking - 1]  # whoever leaves meanwhile, before that there are too few
        for now, count in islice(_counts(presences, free, start), len(free)):
            if now > until:
                return None, until
            if count >= wanted:
                return now, now
            looked += 1
    return None, now


def _counts(presences: Mapping[int, Presence], free: Mapping[int, float], start: float) -> Iterator[tuple[float, int]]:
    """Yield each time from `start` on at which devices come or go, and how many are there from then on."""
    changes = [(presences[device].next(max(start, time)), device) for device, time in free.items()]
    heapq.heapify(changes)
    there: set[int] = set()
    while (now := changes[0][0]) < math.inf:
        while changes[0][0] == now:  # all that happens at once: who leaves may have come back
            device = changes[0][1]
            if device in there:
                there.remove(device)
                heapq.heapreplace(changes, (presences[device].next(now), device))
            else:
                there.add(device)
                heapq.heapreplace(changes, (presences[device].end(now), device))
        yield now, len(there)
