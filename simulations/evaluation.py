"""All released students of a run and its teacher, measured the same way on this machine: `evaluation.json`."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from client import probe
from client.data import Labelled
from client.evaluate import energy
from client.evaluate.measure import Effort, Model, measure
from fedstill.errors import ReleaseError, RunFolderError
from fedstill.learning import restored
from fedstill.models import architecture
from fedstill.release.manifest import MANIFEST
from fedstill.release.trust import Trust
from fedstill.release.verify import verify_folder
from fedstill.tasks import load_task
from server.checkpoints import Checkpoints
from server.release.export import export, normalization
from simulations.assets import check_assets
from simulations.run_folder import CONFIG, SUMMARY, commit
from simulations.scenario import Scenario, load_scenario
from simulations.shelf import Shelf
from simulations.summary_file import read_summary

FILE = "evaluation.json"
TEACHER, TEACHER_FILE = "teacher", "teacher.fp32.onnx"
PROBES = 16  # test images that the models are timed on
SAMPLES = 2000  # of the test set at most


def check_finished(out: Path) -> dict[str, Any]:
    """Check that a folder holds a finished run; return its summary.

    Raises:
        RunFolderError: it does not.
        DataError: its summary is damaged.
    """
    summary = read_summary(out)
    if summary is None:
        raise RunFolderError(f"{out}: no finished run here ({SUMMARY} is missing)")
    return summary


def evaluate_run(out: Path, trust: Trust, effort: Effort, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure the signed students of a finished run and its teacher; return what `evaluation.json` holds.

    Args:
        out: the run folder.
        trust: in the keys that signed its students.
        effort: how long a measurement takes.
        tell: told what is measured next.

    Raises:
        RunFolderError: there is no finished run with releases here, or not its teacher.
        DataError: its files are damaged.
        ReleaseError: a student is not to be trusted, crashes or hangs.
    """
    summary = check_finished(out)
    scenario, shelf = load_scenario(str(out / CONFIG)), Shelf(out / "assets")
    if not (out / "students").is_dir():
        raise RunFolderError(f"{out}: method {scenario.method.name} releases no student")
    check_assets(shelf, load_task(scenario.task), "test")
    meter, reason = energy.find()
    students = _students(out, scenario, trust)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fedstill-") as folder:
        for row, path in [*_teacher(out, scenario, Path(folder)), *students]:
            if path is not None:
                tell(f"{row['class']}: {path.name}")
                row |= _measured(path, scenario, shelf, effort, meter)
            rows.append(row)
    _compare(rows)
    machine = probe.look()
    return {
        "run": out.name,
        "scenario": scenario.name,
        "seed": scenario.seed,
        "commit": commit(),
        "commit_of_run": summary["commit"],
        "machine": {
            "model": machine.model,
            "architecture": machine.architecture,
            "cores": machine.cores,
            "emulated": machine.emulated,
        },
        "power_missing": reason or None,
        "rows": rows,
    }


def _teacher(out: Path, scenario: Scenario, folder: Path) -> list[tuple[dict[str, Any], Path | None]]:
    """Export the teacher as it stood at the end; none for a method without one."""
    if scenario.teacher is None or scenario.method.server:  # a baseline's server keeps none
        return []
    state = (Checkpoints(out / "checkpoints").newest() or {}).get("teacher")
    if not state:
        raise RunFolderError(f"{out}: its teacher's state is missing (checkpoints/); evaluate the whole run folder")
    task, name = load_task(scenario.task), scenario.teacher.architecture
    export(restored(architecture(name), task, state), task, folder / TEACHER_FILE)
    return [({"class": TEACHER, "student": name, "file": TEACHER_FILE, "refused": None}, folder / TEACHER_FILE)]


def _students(out: Path, scenario: Scenario, trust: Trust) -> list[tuple[dict[str, Any], Path | None]]:
    found: list[tuple[dict[str, Any], Path | None]] = []
    for name, kind in scenario.device_classes.items():
        folder = out / "students" / name
        row = {"class": name, "student": kind.student, "file": None, "refused": None}
        if not (folder / MANIFEST).exists():  # nothing is signed that did not hold its checks
            found.append(({**row, "refused": "its release was refused; see the run's report"}, None))
            continue
        try:
            manifest, _ = verify_folder(folder, trust, datetime.now(UTC))
        except ReleaseError as error:
            raise ReleaseError(f"{folder}: {error}") from error
        files = sorted(manifest.self_test.expected, key=lambda file: file != manifest.artifact)
        found += [({**row, "file": file}, folder / file) for file in files]
    return found


def _measured(
    path: Path, scenario: Scenario, shelf: Shelf, effort: Effort, meter: energy.Meter | None
) -> dict[str, Any]:
    task, labels = load_task(scenario.task), shelf.test.labels
    rows = np.unique(np.linspace(0, len(labels) - 1, min(SAMPLES, len(labels))).round().astype(np.int64))
    images = np.array(shelf.test.images[rows])
    how = normalization(task)
    model = Model(path, how, task.classes, images[:PROBES])
    cost, known = measure(model, effort, meter, Labelled(images, labels[rows]))
    assert known is not None
    return {**asdict(cost), "knowledge": asdict(known)}


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to each student's row how many times smaller and faster than the teacher it is, and what it keeps of it."""
    teacher = next((row for row in rows if row["class"] == TEACHER), None)
    for row in rows:
        if teacher is None or row is teacher or row["file"] is None:
            row["to_teacher"] = None
            continue
        row["to_teacher"] = {
            "size": _ratio(teacher["bytes"], row["bytes"]),
            "peak_rss": _ratio(teacher["peak_rss_bytes"], row["peak_rss_bytes"]),
            "model_rss": _ratio(teacher["model_rss_bytes"], row["model_rss_bytes"]),
            "latency": _ratio(teacher["latency_ms"]["1"]["p50"], row["latency_ms"]["1"]["p50"]),
            "power": _ratio(_power(teacher, "watts"), _power(row, "watts")),
            "energy": _ratio(_power(teacher, "millijoules"), _power(row, "millijoules")),
            "accuracy_kept": _ratio(row["knowledge"]["accuracy"], teacher["knowledge"]["accuracy"]),
        }


def _power(row: Mapping[str, Any], what: str) -> float | None:
    return row["power"][what] if row["power"] else None


def _ratio(value: float | None, to: float | None) -> float | None:
    return value / to if value is not None and to else None
