"""The two ends of any comparison, which exchange no message: every device for itself, and all data in one place.

Both are references of a federated run under the name of a method, so that they get a row beside the others. They have
no rounds: what they leave is one row, that of the last.
"""

import io
import json

import numpy as np
import torch
from flwr.serverapp import Grid

from fedstill.files import write_atomic, write_json
from fedstill.learning import State
from fedstill.rounds import Traffic
from fedstill.stored import load_tensors
from fedstill.workers import unordered
from server.federation import measure
from simulations.baselines.half import Outcome
from simulations.baselines.loop import row, write_rows
from simulations.progress import RunProgress
from simulations.references import central_state, local_only, rounds_of
from simulations.setup import Setup
from simulations.shared import SharedReferences, key_of_central, key_of_local_only
from simulations.shelf import Shelf


def run_local_only(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Let each device repeat the local training of all rounds; nothing is released, the devices are measured."""
    scenario = setup.scenario
    shared = SharedReferences(setup.references)
    rounds = [rounds_of(scenario, number) for number in range(scenario.devices)]
    keys = [key_of_local_only(scenario, number, own) for number, own in enumerate(rounds)]
    paths = [setup.out / "references" / f"local_only.{number}.json" for number in range(scenario.devices)]
    for key, path in zip(keys, paths, strict=True):
        if not path.exists() and (known := shared.get(key)) is not None:
            write_json(path, known)
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    done = len(paths) - len(missing)
    progress.stage("devices, each alone", len(paths), done)
    calls = [(setup, number, rounds[number]) for number in missing]
    for place, score in unordered(local_only, calls, setup.workers):
        write_json(paths[missing[place]], score)
        shared.put(keys[missing[place]], score)
        done += 1
        progress.step(done)
    scores = [float(json.loads(path.read_text())) for path in paths]
    classes = scenario.classes_of_devices()
    devices = {
        name: float(np.mean([score for score, own in zip(scores, classes, strict=True) if own == name]))
        for name in scenario.device_classes
    }
    references = {f"local_only.{number}": score for number, score in enumerate(scores)}
    return _left(setup, {}, dict.fromkeys(devices), devices, references)


def run_centralized(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Train each class's student on the server's and all private data, pooled, and release it."""
    scenario = setup.scenario
    kinds = scenario.device_classes
    class_of = {kind.student: name for name, kind in kinds.items()}
    paths = {student: setup.out / "references" / f"central.{name}.pt" for student, name in class_of.items()}
    missing = [student for student, path in paths.items() if not path.exists()]
    done = len(paths) - len(missing)
    progress.stage("students, all data", len(paths), done)
    calls = [(setup, class_of[student]) for student in missing]
    for place, state in unordered(central_state, calls, setup.workers):
        content = io.BytesIO()
        torch.save(state, content)
        write_atomic(paths[missing[place]], content.getvalue())
        done += 1
        progress.step(done)
    models: dict[str, State] = {student: load_tensors(path) for student, path in paths.items()}
    scores = {student: measure(scenario.task, student, state, shelf.test) for student, state in models.items()}
    shared = SharedReferences(setup.references)
    for student, score in scores.items():
        shared.put(key_of_central(scenario, student), score)
    released = {name: scores[kind.student] for name, kind in kinds.items()}
    references = {f"central.{name}": score for name, score in released.items()}
    return _left(setup, models, released, dict.fromkeys(released), references)


def _left(
    setup: Setup,
    models: dict[str, State],
    released: dict[str, float | None] | dict[str, float],
    devices: dict[str, float | None] | dict[str, float],
    references: dict[str, float],
) -> Outcome:
    nothing = Traffic()
    none = dict.fromkeys(released, 0)
    last = row(
        setup.scenario.rounds,
        answers=0,
        refused={},
        released=released,
        devices=devices,
        work={"device_steps": none, "device_samples": none},
        traffic=nothing,
    )
    write_rows(setup, [last])
    return Outcome(models, [last], 0.0, nothing, references)
