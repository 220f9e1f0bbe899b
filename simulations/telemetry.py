"""What the devices of earlier releases told, as a run knows it: read once, at its begin, and kept in its folder."""

from pathlib import Path
from typing import Any

from fedstill.device_classes import budget_of
from fedstill.files import write_atomic
from fedstill.tasks import load_task
from server.delivery.summary import Found, Summary, read
from simulations.scenario import Scenario

FILE = "telemetry.json"
FIGURES = ("version", "devices", "latency_ms_p50", "accuracy", "drift")


def adopt(scenario: Scenario, out: Path) -> None:
    """Copy the telemetry that a scenario names into its run folder: a resumed run goes on with the same.

    Raises:
        ConfigError: the file can't be read or is no summary of telemetry.
    """
    if scenario.telemetry and not (out / FILE).exists():
        write_atomic(out / FILE, read(Path(scenario.telemetry)).model_dump_json(indent=2).encode())


def told(scenario: Scenario, out: Path) -> dict[str, Found]:
    """Return, by device class, what devices told about their newest release with the very student of the scenario.

    Args:
        scenario: the run's.
        out: the run's folder.
    """
    if not scenario.telemetry:
        return {}
    return newest(scenario, read(out / FILE))


def newest(scenario: Scenario, summary: Summary) -> dict[str, Found]:
    """Return, by device class, what a summary knows of the newest release with the very student of the scenario."""
    task = load_task(scenario.task).name
    found = {name: summary.newest(name, task, kind.student) for name, kind in scenario.device_classes.items()}
    return {name: one for name, one in found.items() if one is not None}


def facts(scenario: Scenario, out: Path) -> dict[str, dict[str, Any]]:
    """Return what a summary says about each device class in the field; null where its devices told nothing."""
    known = told(scenario, out)
    rows = {}
    for name, kind in scenario.device_classes.items():
        one = known.get(name)
        row: dict[str, Any] = dict.fromkeys((*FIGURES, "slow", "drifting"))
        if one is not None:
            row = {key: getattr(one, key) for key in FIGURES}
            row |= {"slow": one.slow(budget_of(name, kind.budget)), "drifting": one.drifting}
        rows[name] = {f"field_{key}": value for key, value in row.items()}
    return rows
