from datetime import datetime
from pathlib import Path

import pytest

from client.home import Home
from client.limits import Gate, Limits, read_limits
from fedstill.errors import ConfigError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 21, hour, minute)


def heat(root: Path, *degrees: float) -> None:
    for number, value in enumerate(degrees):
        zone = root / "sys" / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "temp").write_text(f"{int(value * 1000)}\n")


def test_without_limits_a_device_may_always_train(tmp_path: Path) -> None:
    assert Gate(tmp_path).closed(Limits()) == ""
    assert Gate(tmp_path).closed(read_limits(Home(tmp_path))) == ""


@pytest.mark.parametrize(
    ("spans", "now", "closed"),
    [
        (("09:00-17:00",), at(9), ""),
        (("09:00-17:00",), at(17), "outside its hours"),
        (("09:00-17:00",), at(8, 59), "outside its hours"),
        (("22:00-06:00",), at(23), ""),
        (("22:00-06:00",), at(5, 59), ""),
        (("22:00-06:00",), at(6), "outside its hours"),
        (("22:00-06:00", "12:00-13:00"), at(12, 30), ""),
        (("22:00-06:00",), None, "its clock is not set"),
    ],
)
def test_a_device_trains_in_its_hours(
    spans: tuple[str, ...], now: datetime | None, closed: str, tmp_path: Path
) -> None:
    assert Gate(tmp_path, now=lambda: now).closed(Limits(hours=spans)) == closed


@pytest.mark.parametrize("span", ["9-17", "25:00-26:00", "09:00-09:00", "09:00", "09:00-17:60"])
def test_what_is_no_span_of_hours_is_told(span: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.limits.write_text(f'hours = ["{span}"]\n')
    with pytest.raises(ConfigError, match=r"limits.toml: hours: .*22:00-06:00"):
        read_limits(home)


def test_a_hot_device_trains_again_only_when_it_has_cooled_down(tmp_path: Path) -> None:
    gate, limits = Gate(tmp_path, tmp_path), Limits(max_celsius=70, cool_by=10)
    said = []
    for degrees in (69.9, 70.0, 65.0, 60.0, 59.9, 65.0):
        heat(tmp_path, 30.0, degrees)
        said.append(gate.closed(limits))
    assert said == ["", "too hot", "too hot", "too hot", "", ""]


def test_the_hottest_sensor_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    gate, limits = Gate(tmp_path, tmp_path), Limits(max_celsius=70, cool_by=0)
    assert gate.closed(limits) == ""
    heat(tmp_path, 41.5, 69.0, 2000.0)
    assert gate.closed(limits) == ""
    heat(tmp_path, 41.5, 71.0, 2000.0)
    assert gate.closed(limits) == "too hot"


def test_a_full_disk_is_a_reason_to_pause(tmp_path: Path) -> None:
    assert Gate(tmp_path).closed(Limits(free_disk_mb=1)) == ""
    assert Gate(tmp_path).closed(Limits(free_disk_mb=10**9)) == "its disk is full"


@pytest.mark.parametrize(("idle", "closed"), [(90, ""), (60, "in use")])
def test_a_machine_that_others_use_is_left_to_them(
    idle: int, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "proc" / "stat"
    counted.parent.mkdir()
    counted.write_text("cpu  100 0 100 1000 100 0 0 0 7 7\ncpu0 1 1 1 1\n")

    def pass_time(seconds: float) -> None:
        counted.write_text(f"cpu  {100 + 100 - idle} 0 100 {1000 + idle - 10} 110 0 0 0 9 9\n")

    monkeypatch.setattr("client.limits.time.sleep", pass_time)
    assert Gate(tmp_path, tmp_path).closed(Limits(max_busy=0.25)) == closed
