"""What a fleet file says: how fast a class's devices are, when they are there, and how rounds end.

Nothing here knows of tasks or students; `simulations.fleet.speeds` turns it into samples per second.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError
from fedstill.loading import nearest
from fedstill.speed import Speed, read_speed

FILES = Path(__file__).parent
SLOWEST = 0.01
"""Samples and kbit per second that a device does at least. What is slower is no machine, and would be away and back
again more often in a round than can be reckoned."""


class AvailabilitySettings(Settings):
    """When a device can be reached, while it belongs to the fleet."""

    pattern: Literal["always", "daily", "duty-cycle"] = "always"
    """`always`; `daily`: between two hours of each day; `duty-cycle`: for a share of each period."""
    from_hour: float = Field(default=22.0, ge=0, lt=24)
    """Hour of the day at which a device comes, with `daily`."""
    to_hour: float = Field(default=6.0, ge=0, lt=24)
    """Hour of the day at which it goes, with `daily`; earlier than `from_hour`: on the next day."""
    spread_hours: float = Field(default=0.0, ge=0, le=12)
    """Each device's hours, with `daily`, are moved by its own draw from plus or minus so many."""
    period_seconds: float = Field(default=3600.0, ge=60, le=1e8)
    """Length of a period, with `duty-cycle`; each device has its own phase."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of a period in which a device is there, with `duty-cycle`."""

    @model_validator(mode="after")
    def _has_hours(self) -> "AvailabilitySettings":
        if self.pattern == "daily" and self.from_hour == self.to_hour:
            raise ValueError("from_hour and to_hour are the same: devices that are always there have pattern 'always'")
        return self


class ChurnSettings(Settings):
    """Devices that join and leave."""

    join_hours: float = Field(default=0.0, ge=0, le=10_000)
    """Devices join evenly over so many hours from the run's begin; 0: all are there at once."""
    stay_hours: float | None = Field(default=None, ge=0.1, le=1e6)
    """Mean time that a device stays, exponentially distributed; absent: for ever."""
    away_hours: float | None = Field(default=None, ge=0.1, le=1e6)
    """Mean time until a device that left comes back, exponentially distributed; absent: it does not."""


class StragglerSettings(Settings):
    """Devices that are slower than their class."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Probability that a device computes a round's work `factor` times as long, drawn for each device and round."""
    factor: float = Field(default=3.0, ge=1, le=1000)
    """How many times as long."""
    spread: float = Field(default=0.0, ge=0, le=3)
    """Sigma of the log-normal factor, median 1, by which a device's time to compute differs from its class's in all
    rounds."""


class PowerSettings(Settings):
    """What a device draws, as a whole, in watts."""

    compute_watts: float = Field(default=0.0, ge=0, le=10_000)
    """While it learns and predicts."""
    network_watts: float = Field(default=0.0, ge=0, le=10_000)
    """While a packet travels."""
    idle_watts: float = Field(default=0.0, ge=0, le=10_000)
    """While it can be reached and has nothing to do."""


class FleetClassSettings(Settings):
    """The devices of a class. Speeds are of one device, with the student and images of the run's task."""

    train_samples_per_second: float | None = Field(default=None, ge=SLOWEST, le=1e9)
    """Samples in optimizer steps per second; absent: from `benchmark` or `macs_per_second`."""
    predict_samples_per_second: float | None = Field(default=None, ge=SLOWEST, le=1e9)
    """Predicted samples per second; absent: from the telemetry, `benchmark` or `macs_per_second`."""
    benchmark: Speed | None = None
    """What `fedstill client speed` measured on a device of this class with the run's student; in a file, the name
    of the file that the command wrote, seen from its own folder."""
    macs_per_second: float | None = Field(default=None, ge=1000, le=1e18)
    """Multiply-accumulates per second, for speeds that are not given: a prediction takes those of the student's forward
    pass, a sample in a step three times as many."""
    predict_from_telemetry: bool = False
    """Whether the prediction speed is what the class's own devices told (`telemetry` of the scenario)."""
    up_kbit_per_second: float = Field(ge=SLOWEST, le=1e9)
    """Bandwidth of what a device sends, in units of 1000 bit/s."""
    down_kbit_per_second: float = Field(ge=SLOWEST, le=1e9)
    """Bandwidth of what it gets."""
    latency_ms: float = Field(default=0.0, ge=0, le=1e7)
    """Time that any packet takes beside its bytes, each way."""
    memory_bytes: int | None = Field(default=None, gt=0)
    """Memory that a round may use; a run whose student can't be trained in it is refused. Absent: not checked."""
    power: PowerSettings = PowerSettings()
    availability: AvailabilitySettings = AvailabilitySettings()
    churn: ChurnSettings = ChurnSettings()
    stragglers: StragglerSettings = StragglerSettings()
    failure: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a device that is asked fails in that round before it answers."""

    @model_validator(mode="after")
    def _has_speeds(self) -> "FleetClassSettings":
        if self.macs_per_second is None and self.benchmark is None:
            if self.train_samples_per_second is None:
                raise ValueError(
                    "nothing says how fast it trains: set train_samples_per_second, benchmark or macs_per_second"
                )
            if self.predict_samples_per_second is None and not self.predict_from_telemetry:
                raise ValueError(
                    "nothing says how fast it predicts: set predict_samples_per_second, predict_from_telemetry,"
                    " benchmark or macs_per_second"
                )
        if self.predict_from_telemetry and self.predict_samples_per_second is not None:
            raise ValueError("predict_samples_per_second and predict_from_telemetry exclude each other")
        return self


class RoundEndSettings(Settings):
    """When a round ends."""

    policy: Literal["synchronous", "deadline", "buffered"] = "synchronous"
    """`synchronous`: when all that were asked answered or failed; `deadline`: at a deadline, or when nobody is at work
    any more, but not below the quorum; `buffered`: when K answers have come, to this round's request or an earlier."""
    deadline_seconds: float | None = Field(default=None, gt=0, le=1e8)
    """Of `deadline`, from the round's begin."""
    buffer: int | None = Field(default=None, ge=1)
    """K of `buffered`."""
    staleness: int = Field(default=10, ge=1, le=1000)
    """An answer that comes later than so many rounds after the round that asked is not used."""
    server_seconds: float = Field(default=0.0, ge=0, le=1e6)
    """Time that the server takes between two rounds."""

    @model_validator(mode="after")
    def _complete(self) -> "RoundEndSettings":
        if self.policy == "deadline" and self.deadline_seconds is None:
            raise ValueError("policy 'deadline' needs deadline_seconds")
        if self.policy == "buffered" and self.buffer is None:
            raise ValueError("policy 'buffered' needs buffer, the number of answers that end a round")
        return self

    def awaited(self, quorum: int) -> int:
        """Return how many answers a round waits for at least, where `quorum` is what any round needs."""
        return self.buffer if self.policy == "buffered" and self.buffer is not None else quorum

    @property
    def lets_answers_be_late(self) -> bool:
        """Whether a round may end before all answers to it have come."""
        return self.policy != "synchronous"


class FleetSettings(Settings):
    """A fleet that lives in virtual time."""

    classes: dict[str, FleetClassSettings] = Field(min_length=1)
    """By device class; those that a run does not have are not used."""
    rounds: RoundEndSettings = RoundEndSettings()
    start_hour: float = Field(default=0.0, ge=0, lt=24)
    """Hour of the day at which the run begins."""

    def check(self, classes: Iterable[str], asked: int, quorum: int) -> None:
        """Make sure that a run can have this fleet.

        Args:
            classes: the run's device classes.
            asked: devices that a round asks.
            quorum: answers that a round needs.

        Raises:
            ValueError: a class is missing, or the buffer does not go with quorum and devices.
        """
        for name in classes:
            if name not in self.classes:
                raise ValueError(f"fleet has no class {name!r}; {nearest(name, list(self.classes))}")
        awaited = self.rounds.awaited(quorum)
        if awaited < quorum:
            raise ValueError(
                f"fleet.rounds.buffer of {awaited} answers is below the quorum of {quorum}: raise it, or lower"
                " exchange.quorum"
            )
        if awaited > asked:
            raise ValueError(f"fleet.rounds.buffer waits for {awaited} answers of {asked} devices")


def builtin() -> list[str]:
    """Return the names of the built-in fleets."""
    return sorted(path.stem for path in FILES.glob("*.toml"))


def raw_fleet(name: str) -> dict[str, Any]:
    """Return the values of a built-in fleet or a fleet file, checked.

    Args:
        name: a built-in name or a path that ends in `.toml`.

    Raises:
        ConfigError: there is no such fleet or file, or it says something wrong.
    """
    if name.endswith(".toml"):
        path = Path(name)
    elif name in builtin():
        path = FILES / f"{name}.toml"
    else:
        raise ConfigError(f"unknown fleet {name!r}; {nearest(name, builtin())}; a fleet file's name ends in .toml")
    raw = with_benchmarks(read_toml(path), path.parent)
    parse(FleetSettings, raw, f"fleet {name}")
    return raw


def with_benchmarks(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a fleet's raw values with what the benchmark files that it names say, so that a run needs them no more.

    Args:
        raw: nested values, as TOML gives them.
        folder: where relative paths begin.

    Raises:
        ConfigError: such a file can't be read or is none.
    """
    classes = raw.get("classes")
    if not isinstance(classes, dict):
        return raw
    read = {
        name: {**kind, "benchmark": read_speed(folder / kind["benchmark"]).model_dump()}
        for name, kind in classes.items()
        if isinstance(kind, dict) and isinstance(kind.get("benchmark"), str)
    }
    return {**raw, "classes": {**classes, **read}}
