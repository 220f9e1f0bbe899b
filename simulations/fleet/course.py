"""The course of one round in virtual time, and what of it goes into the round's line of `rounds.jsonl`."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from simulations.fleet.availability import Presence
from simulations.fleet.clock import Speeds, Trip, idle_seconds, working_joules
from simulations.fleet.settings import FleetClassSettings, FleetSettings


@dataclass(frozen=True)
class Fleet:
    """A run's devices in time.

    Attributes:
        settings: the fleet file.
        classes: class of each device, by its number.
        speeds: by class.
        seed: run seed.
        quorum: answers that a round needs.
        active: devices that a round asks at most, with `buffered` those at work at a time; 0: no limit.
    """

    settings: FleetSettings
    classes: Sequence[str]
    speeds: Mapping[str, Speeds]
    seed: int
    quorum: int
    active: int = 0

    def kind(self, device: int) -> FleetClassSettings:
        """Return the settings of a device's class."""
        return self.settings.classes[self.classes[device]]

    def presence(self, device: int) -> Presence:
        """Return when a device can be reached."""
        kind = self.kind(device)
        return Presence.of(device, kind.availability, kind.churn, self.settings.start_hour, self.seed)


@dataclass(frozen=True)
class Course:
    """What happened in a round.

    Attributes:
        since: end of the round before, with the server's time after it.
        begun: when the server asked.
        ended: when it had what it waited for.
        until: when it was done with the round.
        offline: devices that could not be reached.
        trips: of the devices that were asked and answer, or refused.
        lost: of the devices that were asked and failed.
        earlier: of the devices that were at work on an earlier request when the round before ended.
        missed: devices that were asked and whose answers had not come.
        late: devices whose answers to earlier rounds were used.
        unused: devices whose answers to earlier rounds came too late.
        staleness: of each used answer, the rounds since it was asked for.
    """

    since: float
    begun: float
    ended: float
    until: float
    offline: Collection[int]
    trips: Mapping[int, Trip]
    lost: Mapping[int, Trip]
    earlier: Mapping[int, Trip]
    missed: Collection[int]
    late: Collection[int]
    unused: Collection[int]
    staleness: Sequence[int]


def row_of(fleet: Fleet, presence: Callable[[int], Presence], course: Course) -> dict[str, Any]:
    """Return a round's figures: times in seconds from the run's begin, counts and energies by device class.

    The energy of an answer counts in the round that asked, also where the answer comes later.
    """
    groups: dict[str, Collection[int]] = {
        "asked": [*course.trips, *course.lost],
        "offline": course.offline,
        "busy": [device for device, way in course.earlier.items() if way.arrived > course.begun],
        "failed": course.lost,
        "deadline_misses": course.missed,
        "late_answers": course.late,
        "unused_answers": course.unused,
    }
    energy = _joules(fleet, presence, course)
    classes: dict[str, dict[str, Any]] = {}
    for name in fleet.speeds:
        counts = {key: sum(fleet.classes[device] == name for device in devices) for key, devices in groups.items()}
        times = [
            way.arrived - way.asked
            for device, way in course.trips.items()
            if fleet.classes[device] == name and math.isfinite(way.arrived)
        ]
        answered = {key: of(times) if times else None for key, of in (("fastest", min), ("slowest", max))}
        answered["median"] = median(times) if times else None
        classes[name] = {**counts, "energy_joules": energy[name], "answer_seconds": answered}
    return {
        "begin_seconds": course.begun,
        "end_seconds": course.ended,
        "round_seconds": course.ended - course.begun,
        "waited_seconds": course.begun - course.since,
        "staleness": fmean(course.staleness) if course.staleness else None,
        "device_classes": classes,
    }


def _joules(fleet: Fleet, presence: Callable[[int], Presence], course: Course) -> dict[str, float]:
    """Return the energy of all devices of each class since the round before."""
    joules = dict.fromkeys(fleet.speeds, 0.0)
    for device, name in enumerate(fleet.classes):
        power = fleet.settings.classes[name].power
        ways = [found[device] for found in (course.trips, course.lost) if device in found]
        joules[name] += sum(working_joules(way, power) for way in ways)
        if power.idle_watts:
            ways += [course.earlier[device]] if device in course.earlier else []
            joules[name] += power.idle_watts * idle_seconds(presence(device), ways, course.since, course.until)
    return joules
