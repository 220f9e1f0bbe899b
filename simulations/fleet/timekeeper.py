"""The virtual clock of a run: who is asked, when answers come, and which of them a round may use.

What lasts from round to round is the time, the answers that are still under way, the devices that have yet to fail, the
votes that late answers may join, and who has worked in which round; all of it is in the checkpoint. Everything else
follows from the run's seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from statistics import fmean
from typing import Any

from fedstill.consensus.ballots import without
from fedstill.errors import QuorumError
from fedstill.participation import participants
from fedstill.rounds import Reopened, RoundReplies
from fedstill.soft_labels import SoftLabels
from simulations.fleet.availability import DAY_HOURS, HOUR, Presence
from simulations.fleet.ballots import Late, OpenBallots, load_labels, store_labels
from simulations.fleet.clock import (
    Trip,
    Work,
    compute_seconds,
    end_of_round,
    failed_trip,
    failure,
    slowness,
    trip,
)
from simulations.fleet.course import Course, Fleet, row_of
from simulations.fleet.gathering import CHANGES, gathered

WORK = ("steps", "samples")
PATIENCE_DAYS = 30
"""Days of virtual time that the server waits for enough devices before a round."""


@dataclass(frozen=True)
class UnderWay:
    """An answer that its device has begun and the server does not have yet.

    Attributes:
        round_number: the round that asked.
        trip: its times.
        labels: the answer.
        metrics: what the device measured of itself.
    """

    round_number: int
    trip: Trip
    labels: SoftLabels
    metrics: Mapping[str, float]


class Timekeeper:
    """Keeps the virtual time of a run.

    Args:
        fleet: the run's devices.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.under_way: dict[int, UnderWay] = {}
        self._failing: dict[int, Trip] = {}
        self._worked: dict[int, int] = {}  # by device a bit for each round
        self._begun = 0.0
        self._offline: list[int] = []
        self._ballots = OpenBallots(fleet.quorum)
        self._row: dict[str, Any] = {}
        self._presences: dict[int, Presence] = {}

    @property
    def lets_answers_be_late(self) -> bool:
        """Whether an answer may come after the end of the round that asked for it."""
        return self.fleet.settings.rounds.lets_answers_be_late

    def begin(self, round_number: int, reached: Iterable[int]) -> list[int]:
        """Return the devices that a round asks, ascending: those that can be reached and are not at work.

        The server waits until they and the answers to earlier rounds are as many as the round needs. A device whose
        answer has come since the last round ended is not at work any more.

        Args:
            round_number: the round.
            reached: devices whose host is there, ascending.

        Raises:
            QuorumError: so many are never there at the same time.
        """
        fleet, rounds = self.fleet, self.fleet.settings.rounds
        work = self._at_work()
        known = [(device, work[device].arrived if device in work else 0.0) for device in reached]
        awaited = sum(self._is_usable(one, round_number) for one in self.under_way.values())
        needed = rounds.awaited(fleet.quorum)
        begun = self.now
        if needed > awaited:
            begun = self._gathered(round_number, known, needed, awaited)
        there = [device for device, free in known if free <= begun and self._presence(device).there(begun)]
        self._begun = begun
        self._offline = sorted({device for device, free in known if free <= begun} - set(there))
        limit = fleet.active or len(there)
        if fleet.active and rounds.policy == "buffered":
            limit = max(0, fleet.active - sum(way.arrived > begun for way in work.values()))
        return participants(fleet.seed, round_number, there, limit) if limit < len(there) else there

    def rounds_of(self, device: int) -> tuple[int, ...]:
        """Return the rounds whose work a device has done, ascending."""
        worked = self._worked.get(device, 0)
        return tuple(number for number in range(1, worked.bit_length()) if worked >> number & 1)

    def fails(self, device: int, round_number: int) -> float | None:
        """Return after which share of its work a device fails in a round; None: it does not."""
        return failure(self.fleet.kind(device).failure, self.fleet.seed, device, round_number)

    def end(
        self,
        replies: RoundReplies[SoftLabels],
        down: Mapping[int, int],
        up: Mapping[int, int],
        failing: Mapping[int, float],
    ) -> RoundReplies[SoftLabels]:
        """Go on to the end of a round, and return what has come until then.

        Args:
            replies: what the asked devices answer, whenever it comes.
            down: bytes of each asked device's request.
            up: bytes of each one's answer; 0: it has none.
            failing: devices that fail, and after which share of their work.
        """
        number, rounds = replies.round_number, self.fleet.settings.rounds
        trips = {device: self._trip(device, replies, down[device], up[device]) for device in down if device in up}
        lost = self._lost(replies, down, failing)
        earlier, work = self.under_way, self._at_work()
        usable = {device: one.trip.arrived for device, one in earlier.items() if self._is_usable(one, number)}
        ended = end_of_round(
            rounds,
            self.fleet.quorum,
            self._begun,
            [way.arrived for way in (*trips.values(), *lost.values())],
            [*usable.values(), *(trips[device].arrived for device in replies.votes)],
        )
        come = {device: one for device, one in earlier.items() if one.trip.arrived <= ended}
        late = {device: one for device, one in come.items() if device in usable}
        missed = {device for device in replies.votes if trips[device].arrived > ended}
        in_time = [device for device in replies.votes if device not in missed]
        course = Course(
            since=self.now,
            begun=self._begun,
            ended=ended,
            until=ended + rounds.server_seconds,
            offline=self._offline,
            trips=trips,
            lost=lost,
            earlier=work,
            missed=missed,
            late=late,
            unused=come.keys() - late.keys(),
            staleness=[*(0 for _ in in_time), *(number - one.round_number for one in late.values())],
        )
        self._row = row_of(self.fleet, self._presence, course)
        self.now = course.until
        for device in replies.votes:
            self._worked[device] = self._worked.get(device, 0) | 1 << number
        failed = {**self._failing, **lost}
        self._failing = {device: way for device, way in failed.items() if way.arrived > self.now}
        for presence in self._presences.values():
            presence.forget(self.now)
        self.under_way = {device: one for device, one in earlier.items() if device not in come} | {
            device: UnderWay(number, trips[device], replies.votes[device], replies.metrics[device])
            for device in sorted(missed)
            if math.isfinite(trips[device].arrived)  # else the device left for ever
        }
        votes, reopened = self._counted(replies, in_time, late)
        told = {device: one.metrics for device, one in come.items()}
        for device, metrics in replies.metrics.items():
            if device not in missed:
                told[device] = {**metrics, **_sums(told[device], metrics)} if device in told else metrics
        return replace(
            replies,
            votes=votes,
            metrics=dict(sorted(told.items())),
            refused=dict(sorted({**replies.refused, **dict.fromkeys(lost, "failed before it answered")}.items())),
            reopened=reopened,
            answered=len(in_time) + len(late),
        )

    def row(self) -> dict[str, Any]:
        """Return what the last round adds to its line of `rounds.jsonl`."""
        return {"virtual": self._row}

    def stored(self) -> dict[str, Any]:
        """Return what lasts, for a checkpoint."""
        under_way = {
            device: {
                "round": one.round_number,
                "trip": list(astuple(one.trip)),
                "labels": store_labels(one.labels),
                "metrics": dict(one.metrics),
            }
            for device, one in self.under_way.items()
        }
        return {
            "now": self.now,
            "under_way": under_way,
            "failing": {device: list(astuple(way)) for device, way in self._failing.items()},
            "worked": {device: f"{rounds:x}" for device, rounds in self._worked.items()},
            "ballots": self._ballots.stored(),
        }

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take over what `stored` returned."""
        self.now = stored["now"]
        self._ballots.restore(stored["ballots"])
        self._worked = {device: int(rounds, 16) for device, rounds in stored["worked"].items()}
        self._failing = {device: Trip(*way) for device, way in stored["failing"].items()}
        self.under_way = {
            device: UnderWay(one["round"], Trip(*one["trip"]), load_labels(one["labels"]), one["metrics"])
            for device, one in stored["under_way"].items()
        }

    def _presence(self, device: int) -> Presence:
        if device not in self._presences:
            self._presences[device] = self.fleet.presence(device)
        return self._presences[device]

    def _gathered(self, round_number: int, known: Iterable[tuple[int, float]], needed: int, awaited: int) -> float:
        """Return when as many devices are there as a round lacks.

        Raises:
            QuorumError: as `begin` says.
        """
        until = self.now + PATIENCE_DAYS * DAY_HOURS * HOUR
        free = {device: time for device, time in known if time <= until}
        presences = {device: self._presence(device) for device in free}
        begun, looked = gathered(presences, free, needed - awaited, self.now, until)
        if begun is None:
            days = (looked - self.now) / (DAY_HOURS * HOUR)
            often = f", in which devices came and went {CHANGES:,} times" if looked < until else ""
            raise QuorumError(
                f"round {round_number}: there are never {needed} devices at the same time within"
                f" {days:.2g} days of virtual time{often}; change the fleet or exchange.quorum"
            )
        return begun

    def _at_work(self) -> dict[int, Trip]:
        """Return the trips of devices that were at work when the last round ended."""
        return {**{device: one.trip for device, one in self.under_way.items()}, **self._failing}

    def _is_usable(self, one: UnderWay, round_number: int) -> bool:
        return round_number - one.round_number <= self.fleet.settings.rounds.staleness

    def _counted(
        self, replies: RoundReplies[SoftLabels], in_time: Sequence[int], late: Mapping[int, UnderWay]
    ) -> tuple[Mapping[int, SoftLabels], tuple[Reopened[SoftLabels], ...]]:
        """Return the votes about a round's samples and the rounds that late answers reach."""
        if not self.lets_answers_be_late:
            return without(replies.votes, set(replies.votes) - set(in_time)), ()
        votes = {device: replies.votes[device] for device in in_time}
        told = [Late(device, one.round_number, one.labels) for device, one in sorted(late.items())]
        counted = self._ballots.conclude(replies.round_number, replies.ids, votes, told)
        following = replies.round_number + 1
        awaited = [one.round_number for one in self.under_way.values() if self._is_usable(one, following)]
        self._ballots.close_before(min(awaited, default=following))
        return counted

    def _seconds(self, device: int, round_number: int, work: Work) -> float:
        slow = slowness(self.fleet.kind(device).stragglers, self.fleet.seed, device, round_number)
        return compute_seconds(work, self.fleet.speeds[self.fleet.classes[device]], slow)

    def _trip(self, device: int, replies: RoundReplies[SoftLabels], down: int, up: int) -> Trip:
        work = Work(down, up, self._trained(device, replies) if up else 0.0, len(replies.ids) if up else 0)
        seconds = self._seconds(device, replies.round_number, work)
        return trip(self._begun, work, self.fleet.kind(device), seconds, self._presence(device))

    def _trained(self, device: int, replies: RoundReplies[SoftLabels]) -> float:
        """Return the samples in a device's steps this round; of one that told none, as many as its like: the mean."""
        told, classes = replies.metrics, self.fleet.classes
        if device in told:
            return told[device].get("samples", 0.0)
        likes = [other for other in told if classes[other] == classes[device]] or list(told)
        return fmean(told[other].get("samples", 0.0) for other in likes) if likes else 0.0

    def _lost(
        self, replies: RoundReplies[SoftLabels], down: Mapping[int, int], failing: Mapping[int, float]
    ) -> dict[int, Trip]:
        """Return the trips of failing devices, which do a share of what their like do this round."""
        lost: dict[int, Trip] = {}
        for device, share in failing.items():
            work = Work(down[device], 0, self._trained(device, replies), len(replies.ids))
            seconds = share * self._seconds(device, replies.round_number, work)
            lost[device] = failed_trip(self._begun, down[device], self.fleet.kind(device), seconds)
        return lost


def _sums(earlier: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return the work of a device of which two answers count in a round."""
    return {key: earlier[key] + now[key] for key in WORK if key in earlier and key in now}
