"""The time of a board that may have no clock: it waits for one before it talks to the server.

At every start such a board believes that it is 1970, or the last time it was switched off; the server's certificate is
then not valid yet, and a connection fails in ways that say nothing of a clock. What is known of the time are the day of
this release and the last time that was believed here, kept as the age of an empty file: no content is ever written.

A clock that was far ahead for a moment must not keep the device from its server for ever after: a time is noted only
when the clock ran steadily since the last look, and one that the network set is believed whatever was noted.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from client.home import Home
from client.updates.clock import moment

log = logging.getLogger("fedstill")
EVERY = 3600.0
"""Seconds between two notes of the time."""
LEAP = 60.0
"""Seconds that a clock may be corrected by between two looks and be called steady."""
POLL = 5.0
SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
"""There once systemd has set the clock from the network since the machine was switched on."""


def stamp(home: Home) -> Path:
    """Return the file whose age is the last time that was believed."""
    return home.run / "clock"


def seen(home: Home) -> float:
    """Return the last time that was believed, in Unix seconds; 0: none."""
    try:
        return stamp(home).stat().st_mtime
    except OSError:
        return 0.0


def disbelieved(home: Home, now: float) -> str:
    """Return why a clock is not believed, and what to do; empty: it is.

    Args:
        home: the device's folder.
        now: what the clock says, in Unix seconds.
    """
    known = moment(datetime.fromtimestamp(now, UTC), 0.0 if SYNCHRONIZED.exists() else seen(home))
    if known.clock:
        return ""
    return (
        f"this machine's clock says {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC, but it is "
        f"{known.time:%Y-%m-%d %H:%M} at least; waiting for network time (set the clock, or, if it is right, remove "
        f"{stamp(home)})"
    )


def local_time(home: Home) -> datetime | None:
    """Return the time of day here; None: the clock is not believed."""
    return None if disbelieved(home, time.time()) else datetime.now()


def remember(home: Home, now: float) -> None:
    """Note that it is `now`."""
    stamp(home).touch(mode=0o644)
    os.utime(stamp(home), (now, now))


def wait_for_clock(home: Home, stop: threading.Event, now: Callable[[], float] = time.time) -> None:
    """Wait until the clock can be believed, or `stop` is set."""
    told = False
    while why := disbelieved(home, now()):
        if not told:
            log.warning("%s", why)
            told = True
        if stop.wait(POLL):
            return


def keep_time(home: Home, stop: threading.Event) -> None:
    """Note the time now and then until `stop` is set."""
    began = time.time() - time.monotonic()
    while not stop.wait(EVERY):
        now = time.time()
        begins = now - time.monotonic()  # changes when somebody sets the clock
        if abs(begins - began) < LEAP and not disbelieved(home, now):
            remember(home, now)
        began = begins
