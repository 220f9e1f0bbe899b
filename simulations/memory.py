"""What a run takes: time, and peak memory, the maximum over time of the PSS sum of its whole process tree."""

import contextlib
import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from fedstill.files import write_json

SPENT = "spent.json"
NOTED = 5.0  # seconds between two notes: what a process that is killed leaves uncounted at most


def tree_pss() -> int:
    """Return the PSS sum in bytes of this process and all its descendants, shared pages split between them."""
    root = psutil.Process()
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class PeakMemory:
    """Samples `tree_pss` in a thread while it is open.

    Args:
        interval: seconds between samples.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.peak = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.is_set():
            self._look()
            self._stop.wait(self._interval)

    def _look(self) -> None:
        self.peak = max(self.peak, tree_pss())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()


class Spent(PeakMemory):
    """Time and peak memory of all processes that worked on a run; its folder tells each what those before it took.

    Args:
        out: the run folder.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._path = out / SPENT
        self._noted = self._begun = time.monotonic()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no result depends on it
            earlier = json.loads(self._path.read_text())
            seconds, self.peak = float(earlier["wall_seconds"]), int(earlier["peak_rss_bytes"])
            self._begun -= seconds

    @property
    def seconds(self) -> float:
        """Wall time up to now."""
        return time.monotonic() - self._begun

    def _look(self) -> None:
        super()._look()
        if self._stop.is_set() or time.monotonic() > self._noted + NOTED:
            with contextlib.suppress(OSError):  # a full disk ends a run where results are written, not here
                write_json(self._path, {"wall_seconds": self.seconds, "peak_rss_bytes": self.peak})
            self._noted = time.monotonic()
