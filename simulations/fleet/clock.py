"""The arithmetic of virtual time: from bytes, work and speeds to when an answer comes and what it costs.

Pure functions; times are in seconds from the run's begin, energies in joules.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedstill.rng import stream
from simulations.fleet.availability import Presence, Window
from simulations.fleet.settings import FleetClassSettings, PowerSettings, RoundEndSettings, StragglerSettings

BITS = 8
KBIT = 1000
MS = 1e-3


@dataclass(frozen=True)
class Speeds:
    """How fast a device of a class computes the run's student, in samples per second.

    Attributes:
        train: samples in optimizer steps.
        predict: predicted samples.
        source: where the prediction speed comes from, in words.
    """

    train: float
    predict: float
    source: str = "fleet"


@dataclass(frozen=True)
class Work:
    """What a device did for an answer.

    Attributes:
        down: bytes of the request, a complete packet.
        up: bytes of the answer, a complete packet; 0: the device refused the request.
        trained: samples in its optimizer steps.
        predicted: proxy samples that it predicted.
    """

    down: int
    up: int
    trained: float
    predicted: int


@dataclass(frozen=True)
class Trip:
    """A request's way to a device and its answer's way back.

    Attributes:
        asked: when the request left the server.
        received: when the device had it.
        computed: when the device had computed its answer, or failed.
        left: when the answer left the device: at once, or when it could be reached again.
        arrived: when the server had it; for a device that failed, when it failed.
    """

    asked: float
    received: float
    computed: float
    left: float
    arrived: float

    @property
    def active(self) -> tuple[Window, Window]:
        """When the device was at work: until it had computed, and while the answer travelled."""
        return (self.asked, self.computed), (self.left, self.arrived)


def travel_seconds(size: int, kbit_per_second: float, latency_ms: float) -> float:
    """Return how long a packet of `size` bytes travels."""
    return latency_ms * MS + BITS * size / (KBIT * kbit_per_second)


def compute_seconds(work: Work, speeds: Speeds, slowness: float) -> float:
    """Return how long a device computes that takes `slowness` times as long as its class."""
    return slowness * (work.trained / speeds.train + work.predicted / speeds.predict)


def slowness(stragglers: StragglerSettings, seed: int, device: int, round_number: int) -> float:
    """Return how many times as long as its class a device computes in a round, drawn from the run's seed."""
    factor = 1.0
    if stragglers.spread:
        factor = math.exp(stragglers.spread * stream(seed, "fleet-speed", device).standard_normal())
    if stragglers.share and stream(seed, "fleet-straggler", device, round_number).random() < stragglers.share:
        factor *= stragglers.factor
    return factor


def failure(probability: float, seed: int, device: int, round_number: int) -> float | None:
    """Return after which share of its work a device fails in a round, drawn from the run's seed; None: it does not."""
    if not probability:
        return None
    fails, share = stream(seed, "fleet-failure", device, round_number).random(2)
    return float(share) if fails < probability else None


def trip(asked: float, work: Work, kind: FleetClassSettings, seconds: float, presence: Presence) -> Trip:
    """Return the times of an answer.

    A device that can't be reached when it has computed sends its answer as soon as it can be; infinite: never.

    Args:
        asked: when the request leaves the server.
        work: its bytes.
        kind: the device's class.
        seconds: how long the device computes.
        presence: when it can be reached.
    """
    received = asked + travel_seconds(work.down, kind.down_kbit_per_second, kind.latency_ms)
    computed = received + seconds
    left = presence.next(computed)
    return Trip(
        asked, received, computed, left, left + travel_seconds(work.up, kind.up_kbit_per_second, kind.latency_ms)
    )


def failed_trip(asked: float, down: int, kind: FleetClassSettings, seconds: float) -> Trip:
    """Return the times of a device that fails after computing for `seconds`; the server notices at once."""
    received = asked + travel_seconds(down, kind.down_kbit_per_second, kind.latency_ms)
    stopped = received + seconds
    return Trip(asked, received, stopped, stopped, stopped)


def working_joules(done: Trip, power: PowerSettings) -> float:
    """Return the energy of a trip; what travels never (infinite times) takes none."""
    sending = done.arrived - done.left if math.isfinite(done.arrived) else 0.0
    return power.compute_watts * (done.computed - done.received) + power.network_watts * (
        done.received - done.asked + sending
    )


def idle_seconds(presence: Presence, trips: Sequence[Trip], begin: float, end: float) -> float:
    """Return how long a device can be reached between two times and is not at work."""
    busy = sum(presence.seconds(max(begin, since), min(end, until)) for way in trips for since, until in way.active)
    return max(0.0, presence.seconds(begin, end) - busy)


def end_of_round(
    rounds: RoundEndSettings, quorum: int, begin: float, settled: Sequence[float], usable: Sequence[float]
) -> float:
    """Return when a round ends.

    `buffered` is the buffer of FedBuff (Nguyen et al. 2022, arXiv 2106.06639): the server goes on when K answers have
    come, whichever of its requests they answer.

    Args:
        rounds: when rounds end.
        quorum: answers that a round needs.
        begin: of the round.
        settled: when each device that the round asked has answered, refused or failed.
        usable: when each answer comes that the round may use, those to earlier rounds included.
    """
    settled = [time for time in settled if math.isfinite(time)]
    arrivals = sorted(time for time in usable if math.isfinite(time))
    everyone = max([begin, *settled])
    if rounds.policy == "synchronous":
        return everyone
    wanted, end = rounds.awaited(quorum), begin
    if rounds.policy == "deadline" and rounds.deadline_seconds is not None:
        end = min(max([everyone, *arrivals]), begin + rounds.deadline_seconds)
    if len(arrivals) < wanted:  # all that can come is waited for; below the quorum the run then ends
        return max([everyone, *arrivals])
    return max(end, arrivals[wanted - 1])
