"""The release of a run's class students: exported and verified in worker processes, signed where they hold."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedstill.device_classes import Budget, FormatChoice, budget_of
from fedstill.learning import State
from fedstill.release.manifest import Parent
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.soft_labels import Floats, Ints
from fedstill.workers import close, unordered
from server.release.keys import open_keys
from server.release.sign import sign_folder
from simulations.progress import RunProgress
from simulations.run_folder import commit
from simulations.setup import Setup
from simulations.shelf import Shelf
from simulations.telemetry import told

if TYPE_CHECKING:  # exporters and quantizers take longer to import than a small round: only a release imports them
    from server.release.aware import Awareness
    from server.release.student import Released


def release_students(
    setup: Setup,
    shelf: Shelf,
    states: Mapping[str, State],
    progress: RunProgress,
    consensus: tuple[Ints, Floats] | None = None,
) -> "dict[str, Released]":
    """Export, quantize and verify the students of device classes, sign those that are not refused.

    Args:
        setup: the run.
        shelf: its data.
        states: the trained students by device class.
        progress: told of each one.
        consensus: the run's last soft labels, and which proxy samples they are of; None: no student learns on from
            them under quantization.

    Returns:
        What is known of each, refused ones too.
    """
    if not states:
        return {}
    close()  # the workers' memory from training is not needed beside the exporter's
    progress.stage("export and quantize", len(states))
    count = min(setup.scenario.students.calibration_samples, len(shelf.proxy))
    calibration = np.array(shelf.proxy[:count])
    calls = []
    aware = _awareness(setup, shelf, consensus)
    known = told(setup.scenario, setup.out)
    for name, state in states.items():
        folder = setup.out / "students" / name
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left is no part of the release
        folder.mkdir(parents=True)
        kind = setup.scenario.device_classes[name]
        budget = budget_of(name, kind.budget)
        devices_ms = known[name].latency_ms_p50 if name in known else None
        models = (setup.scenario.task, name, kind.student, state, calibration)
        calls.append((*models, shelf, folder, budget, devices_ms, kind.format, aware))
    names = list(states)
    released: dict[str, Released] = {}
    for place, found in unordered(release_student, calls, setup.workers):
        released[names[place]] = found
        progress.step(len(released))
    _sign(setup, {name: released[name] for name in names if not released[name].refused})
    return {name: released[name] for name in names}


def _awareness(setup: Setup, shelf: Shelf, consensus: tuple[Ints, Floats] | None) -> "Awareness | None":
    how, temperature = setup.scenario.students.quantization_aware, setup.scenario.students.temperature
    if how is None or consensus is None or not len(consensus[0]):
        return None
    from server.release.aware import Awareness

    ids, labels = consensus
    progress = progress_of(setup.scenario.rounds, setup.scenario.rounds)
    last = SCHEDULES[temperature.schedule](progress, temperature.start, temperature.end)
    return Awareness(np.array(shelf.proxy[ids]), labels, how, last, setup.scenario.seed)


def _sign(setup: Setup, accepted: "Mapping[str, Released]") -> None:
    scenario = setup.scenario
    parent = Parent(
        run=setup.out.name, scenario=scenario.name, seed=scenario.seed, rounds=scenario.rounds, commit=commit()
    )
    keys = open_keys(setup.keys)
    for name, facts in accepted.items():
        assert facts.description is not None  # accepted ones have passed their self-test
        sign_folder(setup.out / "students" / name, facts.description, parent, keys)


def release_student(
    task: str,
    name: str,
    student: str,
    state: State,
    calibration: np.ndarray,
    shelf: Shelf,
    folder: Path,
    budget: Budget,
    devices_ms: float | None,
    wanted: FormatChoice,
    aware: "Awareness | None",
) -> "Released":
    """Export, quantize and verify one class student; runs in a worker."""
    from server.release.student import release

    test = (shelf.test.images, shelf.test.labels)
    return release(task, name, student, state, calibration, test, folder, budget, devices_ms, wanted, aware)
