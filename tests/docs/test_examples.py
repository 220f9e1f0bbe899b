"""The examples of the documentation, run as they stand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedstill.loading import load_object
from simulations.engines.local import run_local

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_a_users_own_task_model_partition_and_consensus_come_from_their_file(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "fedstill"), "simulate", str(EXAMPLES / "own_task.toml")]
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["scenario"] == "stripes"
    assert set(summary["device_classes"]) == {"gateway", "sensor"}
    assert summary["device_classes"]["sensor"]["student"].endswith("own_task.py:tiny")
    assert summary["teacher"]["accuracy_final"] > 0.8
    assert (tmp_path / "run" / summary["device_classes"]["sensor"]["artifact"]).is_file()


def test_a_flower_app_of_ones_own_takes_in_the_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    server, client = (load_object(f"{EXAMPLES / 'drop_in.py'}:{name}") for name in ("server", "client"))
    run_local(server, client, 3, {})
    assert capsys.readouterr().out.startswith("consensus [0.")


def test_both_examples_are_shown_in_the_documentation_as_they_are_tested() -> None:
    page = (EXAMPLES.parent / "extending.md").read_text()
    for name in ("own_task.py", "own_task.toml", "drop_in.py"):
        assert (EXAMPLES / name).read_text().strip() in page, name
