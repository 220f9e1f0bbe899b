"""Runs without a teacher and with a part of the devices in each round, on the real digits cut to seconds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from simulations.scenario import load_scenario

COMMAND = [str(Path(sys.executable).parent / "fedstill"), "simulate"]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of eight devices in each of three rounds; certainty by background."""
    changes = ["rounds=3", "devices=8", "central.fit.epochs=1", "students.distil.epochs=2", "partition.alpha=0.5"]
    content = load_scenario("digits", changes).model_dump(exclude_none=True)
    del content["teacher"], content["data"]["server_samples"], content["data"]["guard_samples"]
    del content["device"]["digest"]
    content["device"] |= {"certainty": "background", "abstain_below": 0.3}
    content["consensus"]["rule"] = "density-experts"
    content["exchange"] |= {"active": 4, "per_round": 100}
    content["students"] |= {"last": content["students"]["distil"], "calibration_samples": 20}
    path = tmp_path_factory.mktemp("scenario") / "half.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def simulate(scenario: Path, out: Path, *options: str) -> None:
    command = [*COMMAND, str(scenario), "--out", str(out), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


def rounds(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def reference(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "run"
    simulate(scenario, out, "--workers", "1")
    return out


def test_what_a_teacher_would_have_told_is_null_and_the_rest_is_there(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    assert summary["teacher"] is None
    for facts in summary["device_classes"].values():
        assert facts["accuracy_teacher_only"] is None
        assert 0 <= facts["accuracy_released"] <= 1
        assert facts["device_samples"] >= facts["device_steps"] > 0
    for row in rounds(reference):
        assert row["answers"] == 4
        assert row["teacher_accuracy"] is None
    covered = [row["covered"] for row in rounds(reference)]
    assert 0 < max(covered) < 1  # in a first round of a few steps nobody may be sure of anything yet
    assert "—" in (reference / "report.html").read_text()


def test_fedavg_is_counted_for_the_devices_that_a_round_asks(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    whole = 8 * sum(facts["parameters"] for facts in summary["device_classes"].values())
    half = sum(facts["fedavg_bytes_per_round"] for facts in summary["device_classes"].values())
    assert 0.5 < half / whole < 0.6  # parameters, and the buffers of BatchNorm


@pytest.mark.parametrize("how", [("--hosts", "3", "--workers", "2")])
def test_the_same_devices_are_asked_for_any_number_of_hosts(
    how: tuple[str, ...], scenario: Path, reference: Path, tmp_path: Path
) -> None:
    simulate(scenario, tmp_path / "run", *how)
    assert rounds(tmp_path / "run") == rounds(reference)


def test_a_run_cut_short_resumes_to_the_equal_result(scenario: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    simulate(scenario, out, "--workers", "1")
    before = json.loads((out / "summary.json").read_text())["timing"]
    (out / "summary.json").unlink()
    newest = max((out / "checkpoints").glob("round-*"))
    for path in sorted(newest.iterdir()):
        path.unlink()
    newest.rmdir()
    subprocess.run([*COMMAND, "--resume", "--out", str(out)], check=True, capture_output=True, timeout=300)
    assert rounds(out) == rounds(reference)
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (reference, out))
    assert second["timing"]["wall_seconds"] > before["wall_seconds"]  # of both processes
    assert {name: facts["accuracy_released"] for name, facts in first["device_classes"].items()} == {
        name: facts["accuracy_released"] for name, facts in second["device_classes"].items()
    }
