"""Progress of a run on the terminal: bars with rate and time left, or plain lines where there is no terminal.

The devices of a round are parts of its step. Hosts in this process tell of each with `part_done` (`simulations.parts`);
those of hosts elsewhere are heard of when their host answers.
"""

import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from simulations.parts import listener

EVERY = 10.0  # seconds between lines about parts, and about steps that are many, where there is no terminal
MANY = 100  # steps


@dataclass
class _Count:
    """How far something is.

    Attributes:
        total: steps.
        done: of them.
        offset: done before this process began.
    """

    total: int
    done: int
    offset: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def rate(self) -> float:
        return (self.done - self.offset) / self.elapsed

    def rate_text(self) -> str:
        rate = self.rate
        return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate > 0 else ""

    def left(self) -> float:
        """Return the seconds left."""
        return (self.total - self.done) / self.rate if self.rate > 0 else 0.0


class RunProgress:
    """Shows the stages of a run; every stage has a known number of steps.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bar: TaskID | None = None
        self._part_bar: TaskID | None = None
        self._stage = ""
        self._steps = _Count(0, 0)
        self._each = 0
        self._parts: _Count | None = None
        self._spoke = time.monotonic()
        self._token: Token[Callable[[], None] | None] | None = None

    def __enter__(self) -> "RunProgress":
        self._token = listener.set(self.part)
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            listener.reset(self._token)
        if self._console.is_terminal:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Show a line that stays, above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def stage(self, name: str, total: int, done: int = 0, parts: int = 0) -> None:
        """Begin a stage of `total` steps, `done` of which an earlier run did; each step has so many parts."""
        self._end_parts()
        self._stage, self._steps, self._each = name, _Count(total, done, offset=done), parts
        if self._console.is_terminal:
            self._bar = self._bars.add_task(name, total=total, completed=done, note="", rate="")
        else:
            self._say(f"{name}: {done}/{total}")

    def asking(self, parts: int) -> None:
        """Note how many parts the next step has; of a fleet in virtual time not all devices are there to be asked."""
        self._each = parts

    def step(self, done: int, note: str = "") -> None:
        """Show that `done` steps of the stage are done."""
        self._end_parts()
        steps = self._steps
        steps.done = done
        if self._console.is_terminal and self._bar is not None:
            self._bars.update(self._bar, completed=done, note=note, rate=steps.rate_text())
        elif not self._console.is_terminal and (steps.total <= MANY or done == steps.total or self._silent_for(EVERY)):
            left = f"{steps.elapsed:.0f} s, {steps.left():.0f} s left"
            self._say(f"{self._stage}: {done}/{steps.total}  {left}  {note}".rstrip())

    def part(self) -> None:
        """Show that one more part of the step in progress is done."""
        self._show_parts(1 if self._parts is None else self._parts.done + 1)

    def heard(self, count: int) -> None:
        """Show that so many parts of the step in progress are done, if that is news."""
        if count > (0 if self._parts is None else self._parts.done):
            self._show_parts(min(count, self._each))

    def _show_parts(self, done: int) -> None:
        if not self._each:
            return
        if self._parts is None:
            self._parts = _Count(self._each, 0)
            self._spoke = time.monotonic()
            if self._console.is_terminal:
                name = f"  devices of {self._steps.done + 1}"
                self._part_bar = self._bars.add_task(name, total=self._each, note="", rate="")
        parts = self._parts
        parts.done = done
        if self._part_bar is not None:
            self._bars.update(self._part_bar, completed=done, rate=parts.rate_text())
        elif self._silent_for(EVERY):
            where = f"{self._stage}: in {self._steps.done + 1}, devices {done}/{parts.total}"
            self._say(f"{where}  {parts.rate_text()}, {parts.left():.0f} s left")

    def _end_parts(self) -> None:
        self._parts = None
        if self._part_bar is not None:
            self._bars.remove_task(self._part_bar)
            self._part_bar = None

    def _silent_for(self, seconds: float) -> bool:
        return time.monotonic() - self._spoke >= seconds

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)
