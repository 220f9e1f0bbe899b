from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from server.delivery.summary import Found, Summary
from simulations.scenario import Scenario, load_scenario
from simulations.telemetry import adopt, facts, told


def found(version: int, **changes: object) -> Found:
    known = {"device_class": "pi5", "task": "digits", "student": "tiny-conv-m", "devices": 2, "outcomes": {}}
    return Found.model_validate({**known, **changes, "version": version})


def scenario(path: Path, *found: Found) -> Scenario:
    path.write_text(Summary(found=found).model_dump_json())
    return load_scenario("digits", [f"telemetry='{path}'"])


def test_only_what_is_about_the_same_task_and_student_is_known_and_the_newest_of_it(tmp_path: Path) -> None:
    others = (found(4, student="tiny-conv-l"), found(5, task="mnist"), found(6, device_class="pi4"))
    run = scenario(tmp_path / "told.json", found(1), found(2, latency_ms_p50=3.0), *others)
    adopt(run, tmp_path / "run")
    assert told(run, tmp_path / "run") == {"pi5": found(2, latency_ms_p50=3.0)}


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    run = scenario(tmp_path / "told.json", found(1))
    adopt(run, tmp_path / "run")
    scenario(tmp_path / "told.json", found(2))
    adopt(run, tmp_path / "run")
    assert told(run, tmp_path / "run")["pi5"].version == 1


def test_facts_say_slow_and_drifting_and_are_null_where_nothing_was_told(tmp_path: Path) -> None:
    run = scenario(tmp_path / "told.json", found(1, latency_ms_p50=20.5, drift=0.2))
    adopt(run, tmp_path / "run")
    rows = facts(run, tmp_path / "run")
    assert rows["pi5"] == {
        "field_version": 1,
        "field_devices": 2,
        "field_latency_ms_p50": 20.5,
        "field_accuracy": None,
        "field_drift": 0.2,
        "field_slow": True,
        "field_drifting": False,
    }
    assert set(rows["mcu"].values()) == {None}
    assert facts(load_scenario("digits"), tmp_path) == dict.fromkeys(rows, rows["mcu"])


def test_a_file_that_is_missing_ends_a_run_at_its_begin(tmp_path: Path) -> None:
    run = load_scenario("digits", [f"telemetry='{tmp_path / 'none'}'"])
    with pytest.raises(ConfigError, match="no telemetry can be read here"):
        adopt(run, tmp_path / "run")
