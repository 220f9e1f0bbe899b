import threading
from pathlib import Path

import pytest

from client.home import Home
from client.timekeeping import disbelieved, remember, seen, stamp, wait_for_clock
from client.updates.clock import BUILT

YEAR = 365 * 86400.0
NOW = BUILT.timestamp() + YEAR


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path)
    found.run.mkdir()
    return found


def test_a_clock_that_begins_in_1970_is_not_believed_and_what_to_do_is_told(home: Home) -> None:
    why = disbelieved(home, 12.0)
    assert "1970-01-01 00:00" in why
    assert f"{BUILT:%Y-%m-%d}" in why
    assert str(stamp(home)) in why
    assert disbelieved(home, NOW) == ""


def test_the_last_time_that_was_believed_is_known_after_a_restart_and_costs_no_content(home: Home) -> None:
    remember(home, NOW)
    assert seen(home) == NOW
    assert stamp(home).read_bytes() == b""
    assert "waiting for network time" in disbelieved(home, NOW - 7200)
    assert disbelieved(home, NOW - 60) == ""


def test_a_device_waits_until_its_clock_is_set(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.timekeeping.POLL", 0.01)
    clock = iter([3.0, 4.0, 5.0, NOW, NOW + 1])
    wait_for_clock(home, threading.Event(), lambda: next(clock))
    assert seen(home) == NOW + 1


def test_a_device_that_waits_for_its_clock_can_be_ended(home: Home) -> None:
    stop = threading.Event()
    stop.set()
    wait_for_clock(home, stop, lambda: 3.0)
    assert not stamp(home).exists()
