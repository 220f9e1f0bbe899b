"""When enough devices are there at the same time: a sweep over their comings and goings in virtual time."""

import heapq
from collections.abc import Mapping

from simulations.fleet.availability import Presence

CHANGES = 1_000_000
"""Comings and goings that a sweep looks at: those of 1,000 devices that turn up daily for more than a year."""


def gathered(
    presences: Mapping[int, Presence], free: Mapping[int, float], wanted: int, since: float, until: float
) -> tuple[float | None, float]:
    """Return when so many devices are there, and how far was looked.

    Args:
        presences: of each device.
        free: when each one is not at work any more, in seconds from the run's begin.
        wanted: devices that are to be there.
        since: when the wait begins.
        until: when it ends.

    Returns:
        the first time, from `since` to `until`, at which `wanted` devices that are free can be reached, None if there
        is none; and the time until which that is sure.
    """
    changes = [(presences[device].next(max(since, time)), device) for device, time in free.items()]
    heapq.heapify(changes)
    there: set[int] = set()
    looked = 0
    while changes and (now := changes[0][0]) <= until:
        if looked >= CHANGES:
            return None, now
        while changes[0][0] == now:  # all that happens at once: who leaves may have come back
            device = changes[0][1]
            looked += 1
            if device in there:
                there.remove(device)
                heapq.heapreplace(changes, (presences[device].next(now), device))
            else:
                there.add(device)
                heapq.heapreplace(changes, (presences[device].end(now), device))
        if len(there) >= wanted:
            return now, now
    return None, until
