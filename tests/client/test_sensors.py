from pathlib import Path

from client.sensors import power, temperature


def test_sensors_tell_or_are_left_out(tmp_path: Path) -> None:
    assert temperature(tmp_path) is None
    assert power(tmp_path) is None
    for number, value in enumerate(("41500", "47250", "asleep", "2147483647", "200000")):
        zone = tmp_path / "sys" / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(value)
    meter = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"
    meter.mkdir(parents=True)
    (meter / "power1_input").write_text("3200000")
    assert (temperature(tmp_path), power(tmp_path)) == (47.25, 3.2)
