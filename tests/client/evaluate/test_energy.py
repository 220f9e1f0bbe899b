"""Energy meters, on trees of files as the kernel lays them out and a program that answers as the board's does."""

import time
from pathlib import Path

import pytest

from client.evaluate.energy import find, power_of


@pytest.fixture(autouse=True)
def _no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def write(root: Path, folder: str, **files: object) -> Path:
    place = root / "sys/class" / folder
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_text(f"{content}\n")
    return place


def test_a_machine_without_a_sensor_says_what_it_lacks(tmp_path: Path) -> None:
    meter, reason = find(tmp_path)
    assert meter is None
    assert "vcgencmd" in reason
    assert "hwmon" in reason
    assert "powercap" in reason


def test_rapl_adds_up_packages_and_counts_on_when_a_counter_begins_anew(tmp_path: Path) -> None:
    first = write(tmp_path, "powercap/intel-rapl:0", name="package-0", energy_uj=9_000_000, max_energy_range_uj=10**7)
    second = write(tmp_path, "powercap/intel-rapl:1", name="package-1", energy_uj=0, max_energy_range_uj=10**7)
    write(tmp_path, "powercap/intel-rapl:0:0", name="core", energy_uj=0, max_energy_range_uj=10**7)
    meter, reason = find(tmp_path)
    assert meter is not None
    assert (meter.name, reason) == ("RAPL", "")

    def work() -> None:
        (first / "energy_uj").write_text("1000000\n")
        (second / "energy_uj").write_text("500000\n")

    assert meter.joules(work) == pytest.approx(2 + 0.5)


def test_a_rapl_counter_may_begin_anew_several_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.evaluate.energy.COUNTED", 0.01)
    place = write(tmp_path, "powercap/intel-rapl:0", name="package-0", energy_uj=0, max_energy_range_uj=10**7)
    meter, _ = find(tmp_path)
    assert meter is not None

    def work() -> None:
        for spent in range(4, 44, 4):  # joules
            changed = place / "changed"
            changed.write_text(f"{spent * 10**6 % 10**7}\n")
            changed.replace(place / "energy_uj")
            time.sleep(0.3)

    assert meter.joules(work) == pytest.approx(40)


def test_an_ina_sensor_that_tells_power_is_read(tmp_path: Path) -> None:
    write(tmp_path, "hwmon/hwmon0", name="cpu_thermal")
    write(tmp_path, "hwmon/hwmon1", name="ina226", power1_input=2_500_000)
    meter, _ = find(tmp_path)
    assert meter is not None
    assert meter.name == "INA226"
    begin = time.monotonic()
    joules = meter.joules(lambda: time.sleep(0.2))
    assert 2.5 * 0.2 <= joules <= 2.5 * (time.monotonic() - begin)


def test_of_an_ina3221_the_rail_of_the_whole_board_counts(tmp_path: Path) -> None:
    labels = {"in1_label": "VDD_CPU", "in2_label": "VDD_IN"}
    values = {"in1_input": 5000, "curr1_input": 1, "in2_input": 5000, "curr2_input": 800}
    write(tmp_path, "hwmon/hwmon0", name="ina3221", **labels, **values)
    meter, _ = find(tmp_path)
    assert meter is not None
    assert meter.covers == "rail VDD_IN"
    assert meter.joules(lambda: time.sleep(0.05)) / 4.0 >= 0.05


def test_the_boards_power_controller_comes_first_and_an_older_board_has_none(tmp_path: Path) -> None:
    write(tmp_path, "hwmon/hwmon0", name="ina226", power1_input=1)
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '  VDD_CORE_A current(7)=2.0A'\necho '  VDD_CORE_V volt(15)=0.75V'\n")
    program.chmod(0o755)
    meter, _ = find(tmp_path)
    assert meter is not None
    assert meter.name == "PMIC"
    program.write_text("#!/bin/sh\nexit 255\n")
    meter, _ = find(tmp_path)
    assert meter is not None
    assert meter.name == "INA226"


def test_only_rails_with_current_and_voltage_count() -> None:
    told = "VDD_CORE_A current(7)=2.0A\n VDD_CORE_V volt(15)=0.75V\n EXT5V_V volt(24)=5.1V\n 3V3_SYS_A current(1)=1A\n"
    assert power_of(told) == pytest.approx(1.5)
    assert power_of('error=1 error_msg="Command not registered"') == 0
