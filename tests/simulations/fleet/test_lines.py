from typing import Any

import pytest

from simulations.figures import Figures
from simulations.fleet.clock import Speeds
from simulations.fleet.course import Fleet
from simulations.fleet.lines import duration, joules, virtual_lines
from simulations.fleet.settings import FleetSettings
from simulations.fleet.totals import SUMS, totals

KIND = {"macs_per_second": 1e9, "up_kbit_per_second": 1, "down_kbit_per_second": 1}


def fleet(policy: str) -> Fleet:
    rounds = {"policy": policy, "deadline_seconds": 60, "buffer": 1}
    settings = FleetSettings.model_validate({"classes": {"pi4": KIND}, "rounds": rounds})
    return Fleet(settings, ["pi4"] * 3, {"pi4": Speeds(10, 20)}, seed=0, quorum=1)


def row(end: float, staleness: float | None, misses: int) -> dict[str, Any]:
    counts = {**dict.fromkeys(SUMS, 1), "deadline_misses": misses, "energy_joules": 700.0}
    virtual = {"end_seconds": end, "round_seconds": 60.0, "waited_seconds": 5.0, "staleness": staleness}
    return {"virtual": {**virtual, "device_classes": {"pi4": counts}}}


def lines(policy: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    known = totals(fleet(policy), rows)
    return dict(virtual_lines(Figures({"device_classes": {"pi4": {}}, "fleet": known})))


def test_a_run_without_a_fleet_has_no_line_about_time() -> None:
    assert virtual_lines(Figures({"device_classes": {"pi4": {}}})) == []


def test_totals_are_sums_over_rounds_and_lines_show_them() -> None:
    rows = [row(65.0, None, 2), row(7200.0, 0.5, 1)]
    found = totals(fleet("deadline"), rows)
    assert found["seconds"] == 7200
    assert found["waited_seconds"] == 10
    assert found["staleness_mean"] == 0.5
    assert found["device_classes"]["pi4"]["asked"] == 2
    shown = lines("deadline", rows)
    assert shown["virtual time"] == "2.0 h, deadline rounds of 60.0 s (60.0 s at most)"
    assert shown["energy"] == "pi4 1.4 kJ"
    assert shown["deadline misses"] == "pi4 3"
    assert shown["staleness"] == "0.50 rounds on average"


def test_synchronous_rounds_have_no_misses_to_show_and_no_answers_no_staleness() -> None:
    assert lines("synchronous", [row(65.0, 0.0, 0)]).keys() == {"virtual time", "energy", "failed"}
    assert lines("buffered", [row(65.0, None, 0)])["staleness"] == "—"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0 s"), (119.9, "119.9 s"), (120.0, "2.0 min"), (7200.0, "2.0 h"), (172800.0, "2.0 d")]
)
def test_durations_have_the_unit_that_suits_them(value: float, text: str) -> None:
    assert duration(value) == text


def test_energies_have_the_unit_that_suits_them() -> None:
    assert [joules(value) for value in (0.5, 999.0, 1500.0, 2e6)] == ["0.5 J", "999.0 J", "1.5 kJ", "2.0 MJ"]
