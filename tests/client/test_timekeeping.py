import threading
from pathlib import Path

import pytest

from client.home import Home
from client.timekeeping import disbelieved, keep_time, remember, seen, stamp, wait_for_clock
from client.updates.clock import BUILT

YEAR = 365 * 86400.0
NOW = BUILT.timestamp() + YEAR


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("client.timekeeping.SYNCHRONIZED", tmp_path / "nothing")
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


def test_a_time_from_the_network_is_believed_whatever_was_noted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(home, NOW + 50 * YEAR)
    assert disbelieved(home, NOW)
    monkeypatch.setattr("client.timekeeping.SYNCHRONIZED", home.folder)
    assert disbelieved(home, NOW) == ""
    assert "1970" in disbelieved(home, 12.0)


def test_a_device_waits_until_its_clock_is_set(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.timekeeping.POLL", 0.01)
    clock = iter([3.0, 4.0, 5.0, NOW])
    wait_for_clock(home, threading.Event(), lambda: next(clock))
    assert list(clock) == []
    assert not stamp(home).exists()  # it may be wrong the other way


class Looks(threading.Event):
    """Ends after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("clock", "noted"),
    [
        ([NOW, NOW + 3600, NOW + 7200], NOW + 7200),
        ([NOW, NOW + 50 * YEAR, NOW + 7200], 0),  # ahead for a moment
        ([3.0, 3603.0, 7203.0], 0),  # never set
        ([3.0, NOW, NOW + 3600], NOW + 3600),
    ],
)
def test_a_time_is_noted_when_the_clock_ran_steadily(
    clock: list[float], noted: float, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, ticks = iter(clock), iter([0.0, 3600.0, 7200.0])
    monkeypatch.setattr("client.timekeeping.time.time", lambda: next(times))
    monkeypatch.setattr("client.timekeeping.time.monotonic", lambda: next(ticks))
    keep_time(home, Looks(len(clock) - 1))
    assert seen(home) == noted


def test_a_device_that_waits_for_its_clock_can_be_ended(home: Home) -> None:
    stop = threading.Event()
    stop.set()
    wait_for_clock(home, stop, lambda: 3.0)
    assert not stamp(home).exists()
