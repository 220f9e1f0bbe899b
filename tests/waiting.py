"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds; a machine may be busy."""


def eventually(true: Callable[[], bool]) -> None:
    """Return when something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(0.02)
