"""What a class's own devices found out about a release: for people, for metrics, and for the server's next run."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

from pydantic import Field

from fedstill.config import Settings, read_json
from fedstill.device_classes import Budget
from server.delivery.telemetry import FAILED, OUTCOMES

DRIFT_LIMIT = 0.25  # median distance of the predicted classes' distribution from the self-test period's
DRIFT_PREDICTIONS = 100  # a device's distance is of so many predictions at least: of few ones, chance alone is far off


@dataclass(frozen=True)
class Told:
    """The latest that one device told about one version; what it can't tell is None."""

    device_class: str
    version: int
    task: str
    student: str
    outcome: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    peak_rss_bytes: float | None
    temperature_celsius: float | None
    power_watts: float | None
    samples: float | None
    accuracy: float | None
    drift: float | None
    predictions: float | None


class Found(Settings):
    """What the devices of a class found out about one version; null: none of them told."""

    device_class: str
    version: int = Field(ge=1)
    task: str
    student: str
    """Architecture: latency and memory are its own, whatever the weights."""
    devices: int = Field(ge=1)
    outcomes: dict[str, int]
    """Devices by their latest outcome."""
    latency_ms_p50: float | None = Field(default=None, gt=0)
    """Median over devices of each one's median of a sample."""
    latency_ms_p99: float | None = Field(default=None, gt=0)
    """Median over devices of each one's 99th percentile."""
    peak_rss_bytes: float | None = Field(default=None, gt=0)
    """Median over devices."""
    temperature_celsius: float | None = None
    """The hottest device's."""
    power_watts: float | None = Field(default=None, ge=0)
    """Median over devices."""
    samples: int = Field(default=0, ge=0)
    """Labelled local samples of all devices."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    """On these."""
    drift: float | None = Field(default=None, ge=0, le=1)
    """Median over devices that made enough predictions."""

    def slow(self, budget: Budget) -> bool:
        """Return whether the devices are slower than their class's budget."""
        found, limit = self.latency_ms_p50, budget.latency_ms
        return found is not None and limit is not None and found > limit

    @property
    def failed(self) -> int:
        """Devices that refused the version or rolled it back."""
        return sum(self.outcomes.get(OUTCOMES[number], 0) for number in FAILED)

    @property
    def drifting(self) -> bool:
        """Whether what the devices predict has moved away from what they predicted at first."""
        return self.drift is not None and self.drift > DRIFT_LIMIT


class Summary(Settings):
    """What is known of all classes."""

    format_version: int = Field(default=1, ge=1, le=1)
    found: tuple[Found, ...] = ()
    """By class, then by version."""

    def newest(self, device_class: str, task: str, student: str) -> Found | None:
        """Return what is known of the newest release of a class with a student; None: nothing is."""
        return max(
            (
                found
                for found in self.found
                if (found.device_class, found.task, found.student) == (device_class, task, student)
            ),
            key=lambda found: found.version,
            default=None,
        )


def summarize(told: Iterable[Told]) -> Summary:
    """Summarize what devices told, ordered by class and version."""
    groups = groupby(told, lambda one: (one.device_class, one.version))
    return Summary(found=tuple(_found(list(group)) for _, group in groups))


def _found(told: list[Told]) -> Found:
    first = told[0]
    judged = [(one.accuracy, one.samples) for one in told if one.accuracy is not None and one.samples]
    samples = sum(count for _, count in judged)
    settled = [one.drift for one in told if one.drift is not None and (one.predictions or 0) >= DRIFT_PREDICTIONS]
    hottest = [one.temperature_celsius for one in told if one.temperature_celsius is not None]
    outcomes = Counter(OUTCOMES[one.outcome] for one in told)
    return Found(
        device_class=first.device_class,
        version=first.version,
        task=first.task,
        student=first.student,
        devices=len(told),
        outcomes=dict(sorted(outcomes.items())),
        latency_ms_p50=_median(one.latency_p50_ms for one in told),
        latency_ms_p99=_median(one.latency_p99_ms for one in told),
        peak_rss_bytes=_median(one.peak_rss_bytes for one in told),
        temperature_celsius=max(hottest, default=None),
        power_watts=_median(one.power_watts for one in told),
        samples=int(samples),
        # A device that claims many samples rules the mean; the figure informs people and decides nothing.
        accuracy=sum(value * count for value, count in judged) / samples if samples else None,
        drift=_median(settled),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def read(path: Path) -> Summary:
    """Return the summary in a file that `fedstill server telemetry --out` wrote.

    Raises:
        ConfigError: it can't be read or is none.
    """
    return read_json(Summary, path, "no telemetry can be read here", "no summary of telemetry")
