import json
from pathlib import Path
from typing import Any

from benchmarks.fedgen import ALPHAS, METHODS, STORED, overlay, table
from simulations.methods import load_method

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()


def row(method: str, alpha: float, accuracy: float, size: int = 2_000_000) -> dict[str, Any]:
    work = {"bytes": size, "device_steps": 40_000, "device_samples": 1_280_000}
    return {"method": method, "alpha": alpha, "accuracy": accuracy, **work}


def test_a_cell_is_the_mean_and_deviation_of_its_seeds() -> None:
    found = table([row("fedstill", 0.1, 0.96), row("fedstill", 0.1, 0.98, 3_000_000), row("fedstill", 1.0, 0.99)])
    line = next(line for line in found.splitlines() if "Fedstill" in line)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        *("—", "97.0 ± 1.4", "99.0", "2.0 to 3.0", "40,000", "1,280,000")
    ]


def test_the_stored_table_is_the_one_on_the_page() -> None:
    assert table(json.loads(STORED.read_text())) in PAGE


def test_stored_runs_are_of_clean_commits_and_of_the_protocol() -> None:
    rows = json.loads(STORED.read_text())
    runs = [(found["method"], found["alpha"], found["seed"]) for found in rows]
    assert len(set(runs)) == len(runs) > 0
    assert set(runs) <= {(method, alpha, seed) for method in METHODS for alpha in ALPHAS for seed in range(3)}
    assert all(found["rounds"] == 200 and "+dirty" not in found["commit"] for found in rows)


def test_both_methods_are_told_with_settings_that_exist() -> None:
    for method, changes in METHODS.items():
        scenario = load_method("fedgen-mnist", overlay(method), changes)
        assert (scenario.rounds, scenario.exchange.active, scenario.devices) == (200, 10, 20)
        assert scenario.device.revisit.min_steps * scenario.device.revisit.batch == 20 * 32
