"""Progress of a run on the terminal: bars with rate and time left, or plain lines where there is no terminal."""

import time
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
        self._current: TaskID | None = None
        self._stage = ""
        self._total = 0
        self._done = 0
        self._started = 0.0
        self._offset = 0

    def __enter__(self) -> "RunProgress":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Show a line that stays, above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` steps, `done` of which an earlier run did."""
        self._stage, self._total, self._done, self._offset = name, total, done, done
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._current = self._bars.add_task(name, total=total, completed=done, note="", rate="")
        else:
            self._console.print(f"{name}: {done}/{total}", highlight=False)

    def step(self, done: int, note: str = "") -> None:
        """Show that `done` steps of the stage are done."""
        self._done = done
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (done - self._offset) / elapsed
        left = (self._total - done) / rate if rate > 0 else 0.0
        if self._console.is_terminal and self._current is not None:
            text = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate > 0 else ""
            self._bars.update(self._current, completed=done, note=note, rate=text)
        elif not self._console.is_terminal:
            self._console.print(
                f"{self._stage}: {done}/{self._total}  {elapsed:.0f} s, {left:.0f} s left  {note}".rstrip(),
                highlight=False,
                soft_wrap=True,
            )
