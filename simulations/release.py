"""The release of a run's class students, in worker processes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedstill.learning import State
from fedstill.workers import close, unordered
from server.release.student import Released, release
from simulations.progress import RunProgress
from simulations.setup import Setup
from simulations.shelf import Shelf


def release_students(
    setup: Setup, shelf: Shelf, states: Mapping[str, State], progress: RunProgress
) -> dict[str, Released]:
    """Export, quantize and measure the students of device classes, and return what is known of each.

    Args:
        setup: the run.
        shelf: its data.
        states: the trained students by device class.
        progress: told of each one.
    """
    if not states:
        return {}
    close()  # the workers' memory from training is not needed beside the exporter's
    progress.stage("export and quantize", len(states))
    count = min(setup.scenario.students.calibration_samples, len(shelf.proxy))
    calibration = np.array(shelf.proxy[:count])
    calls = []
    for name, state in states.items():
        folder = setup.out / "students" / name
        folder.mkdir(parents=True, exist_ok=True)
        student = setup.scenario.device_classes[name].student
        calls.append((setup.scenario.task, name, student, state, calibration, shelf, folder))
    names = list(states)
    released: dict[str, Released] = {}
    for place, found in unordered(release_student, calls, setup.workers):
        released[names[place]] = found
        progress.step(len(released))
    return {name: released[name] for name in names}


def release_student(
    task: str,
    name: str,
    student: str,
    state: State,
    calibration: np.ndarray,
    shelf: Shelf,
    folder: Path,
) -> Released:
    """Release one class student; runs in a worker."""
    return release(task, name, student, state, calibration, (shelf.test.images, shelf.test.labels), folder)
