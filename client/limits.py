"""When a device may train: its owner's limits, and what holds of them just now.

A device that may not train says so when a round begins, and is absent from it; a round that it began it ends. All is
read from /proc, /sys, the disk and the clock.
"""

import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from datetime import time as clock_time
from pathlib import Path

from pydantic import Field, field_validator

from client.home import Home
from client.sensors import temperature
from fedstill.config import Settings, parse, read_toml

SPAN = r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]"
SAMPLE = 1.0
"""Seconds over which it is measured whether others use the processor."""


class Limits(Settings):
    """`limits.toml`; what is not set has no limit."""

    hours: tuple[str, ...] = ()
    """Spans of local time in which it may train, such as `22:00-06:00`; empty: at any hour."""
    max_celsius: float | None = Field(default=None, ge=20, le=120)
    """Temperature of the hottest sensor, in degrees Celsius, from which on it does not begin a round."""
    cool_by: float = Field(default=5.0, ge=0, le=50)
    """Degrees below `max_celsius` to which it has to cool down before it trains again."""
    free_disk_mb: int = Field(default=0, ge=0)
    """Megabytes that have to be free on the disk of its folder."""
    max_busy: float | None = Field(default=None, gt=0, le=1)
    """Share of all cores' time that may be in use when it is to begin a round, in (0, 1]; above, others need it."""
    nice: int = Field(default=0, ge=0, le=19)
    """How much the agent gives way to other programs, 0: not at all."""
    cpu_percent: int | None = Field(default=None, gt=0)
    """Percent of one core that its processes get together; held by the service of `client install` alone."""
    memory_mb: int | None = Field(default=None, ge=128)
    """Megabytes of memory that its processes get together; held by the service of `client install` alone."""

    @field_validator("hours")
    @classmethod
    def _are_spans(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        for span in hours:
            if re.fullmatch(SPAN, span) is None or span[:5] == span[6:]:
                raise ValueError(f"{span!r} is no span of hours; for example 22:00-06:00")
        return hours


def read_limits(home: Home) -> Limits:
    """Read a device's limits; without a file there are none.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong.
    """
    return parse(Limits, read_toml(home.limits), str(home.limits)) if home.limits.exists() else Limits()


class Gate:
    """Tells whether a device may begin a round.

    Args:
        folder: on the disk whose room counts.
        root: where /proc and /sys lie.
        now: tells local time; None: there is no clock to believe.
    """

    def __init__(
        self,
        folder: Path,
        root: Path = Path("/"),
        now: Callable[[], datetime | None] = datetime.now,
    ) -> None:
        self._folder = folder
        self._root = root
        self._now = now
        self._hot = False

    def closed(self, limits: Limits) -> str:
        """Return why it may not begin a round now, in words that anybody may read; empty: it may."""
        return (
            self._outside_hours(limits) or self._too_hot(limits) or self._disk_is_full(limits) or self._in_use(limits)
        )

    def _outside_hours(self, limits: Limits) -> str:
        if not limits.hours:
            return ""
        now = self._now()
        if now is None:
            return "its clock is not set"
        return "" if any(_within(now.time(), span) for span in limits.hours) else "outside its hours"

    def _too_hot(self, limits: Limits) -> str:
        found = temperature(self._root)
        if limits.max_celsius is None or found is None:
            return ""
        self._hot = found >= limits.max_celsius - (limits.cool_by if self._hot else 0)
        return "too hot" if self._hot else ""

    def _disk_is_full(self, limits: Limits) -> str:
        room = os.statvfs(self._folder)
        return "its disk is full" if room.f_bavail * room.f_frsize < limits.free_disk_mb * 1_000_000 else ""

    def _in_use(self, limits: Limits) -> str:
        if limits.max_busy is None:
            return ""
        idle, total = _ticks(self._root)
        time.sleep(SAMPLE)
        idle_then, total_then = _ticks(self._root)
        passed = total_then - total
        busy = 1 - (idle_then - idle) / passed if passed else 0.0
        return "in use" if busy > limits.max_busy else ""


def _within(now: clock_time, span: str) -> bool:
    first, last = (clock_time.fromisoformat(part) for part in span.split("-"))
    return first <= now < last if first < last else now >= first or now < last


def _ticks(root: Path) -> tuple[int, int]:
    """Return how long all cores were idle and how long they were there, in the kernel's ticks."""
    user_to_steal = [int(part) for part in (root / "proc" / "stat").read_text().splitlines()[0].split()[1:9]]
    return user_to_steal[3] + user_to_steal[4], sum(user_to_steal)
