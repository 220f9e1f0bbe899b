"""What the federation is compared with: local-only training, teacher-only distillation and the central ceiling.

All three use the same architectures, and the first two exactly the steps that the federation's devices and class
students took. Each result is kept as a file, so that a resumed run does not compute it again, and, of a comparison, the
other methods don't either.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from client.device import revisit
from fedstill.files import write_json
from fedstill.learning import State, accuracy, build, fit, predict, restored, state_of
from fedstill.models import architecture
from fedstill.participation import participants
from fedstill.rng import stream, torch_seed
from fedstill.tasks import load_task
from fedstill.workers import unordered
from server import students
from server.federation import Plan, measure
from simulations.host import data_in, device_data
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shared import SharedReferences, key_of_central, key_of_local_only, key_of_teacher_only
from simulations.shelf import kept_shelf


def local_only(setup: Setup, number: int, rounds: Sequence[int]) -> float:
    """Return the test accuracy of a device that repeats the local training of its rounds without any exchange."""
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    task = load_task(scenario.task)
    kind = scenario.device_classes[scenario.class_of(number)]
    model = build(architecture(kind.student), task, torch_seed(scenario.seed, "device", number))
    data = device_data(shelf, number)
    for round_number in rounds:
        seed = torch_seed(scenario.seed, "revisit", number, round_number)
        data, _ = data_in(scenario, shelf, number, round_number)
        revisit(model, data, task, scenario.device, seed)
    return accuracy(model, shelf.test.images, shelf.test.labels, task)


def rounds_of(scenario: Scenario, number: int) -> tuple[int, ...]:
    """Return the rounds that ask a device of a run that lives in no virtual time, ascending."""
    active, seed, devices = scenario.exchange.active, scenario.seed, scenario.devices
    everything = range(1, scenario.rounds + 1)
    return tuple(one for one in everything if not active or number in _asked(seed, one, devices, active))


@lru_cache(maxsize=1024)
def _asked(seed: int, round_number: int, devices: int, active: int) -> frozenset[int]:
    """Return the devices that a round asks, drawn once for all of them."""
    return frozenset(participants(seed, round_number, range(devices), active))


def teacher_only(setup: Setup, plan: Plan, name: str, teacher: State) -> float:
    """Return the accuracy of a class student distilled from the initial teacher alone.

    Args:
        setup: the run.
        plan: of the federation.
        name: device class.
        teacher: the initial teacher.
    """
    assert plan.teacher is not None
    shelf = kept_shelf(setup.assets)
    task = load_task(plan.task)
    model = restored(architecture(plan.teacher.architecture), task, teacher)
    labels = predict(model, shelf.proxy, task)
    student = plan.student_of[name]
    state = students.initial(plan.task, student, plan.seed)
    for round_number in range(1, plan.rounds + 1):
        state = students.distil(
            plan.task, student, plan.students, state, shelf.proxy, labels, round_number, plan.rounds, plan.seed
        )
    return measure(plan.task, student, state, shelf.test)


def central_state(setup: Setup, name: str) -> State:
    """Return a class's student trained on the server's and all private data, pooled."""
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    task = load_task(scenario.task)
    parts = [shelf.server, shelf.guard, shelf.private]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    student = scenario.device_classes[name].student
    model = build(architecture(student), task, torch_seed(scenario.seed, "student", student))
    how = scenario.central.fit.of(len(labels))
    seed = torch_seed(scenario.seed, "central", student)
    fit(model, images, torch.from_numpy(labels), task, how, F.cross_entropy, seed)
    return state_of(model)


def central(setup: Setup, name: str) -> float:
    """Return the accuracy of `central_state`."""
    student = setup.scenario.device_classes[name].student
    return measure(setup.scenario.task, student, central_state(setup, name), kept_shelf(setup.assets).test)


def alone(scenario: Scenario) -> list[int]:
    """Return the devices whose local-only training is measured, ascending: so many of each class at most.

    They are drawn: a partition may deal classes to devices by their numbers.
    """
    chosen: list[int] = []
    first = 0
    for name, count in scenario.class_counts().items():
        order = stream(scenario.seed, "local-only", name).permutation(count)
        chosen += sorted(first + int(place) for place in order[: scenario.references.local_only])
        first += count
    return chosen


def _call(name: str, work: Callable[..., float], *arguments: Any) -> tuple[str, float]:
    return name, work(*arguments)


def references(
    setup: Setup,
    plan: Plan,
    teacher: State,
    folder: Path,
    took_part: Callable[[int], tuple[int, ...]] | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Compute what is missing of the references that the scenario wants.

    Yields how many are still to do, and what is known so far. Names are `central.<class>`, with a teacher
    `teacher_only.<class>`, and `local_only.<device>`.

    Args:
        setup: the run.
        plan: of the federation.
        teacher: the initial teacher.
        folder: where results are kept.
        took_part: returns the rounds in which a device learned; None: in all that ask it.
    """
    scenario = setup.scenario
    calls: dict[str, tuple[Any, ...]] = {}
    keys: dict[str, str] = {}
    wanted = scenario.references
    for name, student in plan.student_of.items() if wanted.central else ():
        calls[f"central.{name}"] = (central, setup, name)
        keys[f"central.{name}"] = key_of_central(scenario, student)
    if plan.teacher is not None and wanted.teacher_only:
        for name, student in plan.student_of.items():
            calls[f"teacher_only.{name}"] = (teacher_only, setup, plan, name, teacher)
            keys[f"teacher_only.{name}"] = key_of_teacher_only(scenario, student, plan.teacher.architecture, teacher)
    for number in alone(scenario):
        rounds = rounds_of(scenario, number) if took_part is None else took_part(number)
        calls[f"local_only.{number}"] = (local_only, setup, number, rounds)
        keys[f"local_only.{number}"] = key_of_local_only(scenario, number, rounds)
    shared = SharedReferences(setup.references)
    done: dict[str, float] = {}
    for name in calls:
        path = folder / f"{name}.json"
        if not path.exists() and (known := shared.get(keys[name])) is not None:
            write_json(path, known)
        if path.exists():
            done[name] = json.loads(path.read_text())
    missing = [(name, *call) for name, call in calls.items() if name not in done]
    yield len(missing), done
    for _, (name, value) in unordered(_call, missing, setup.workers):
        write_json(folder / f"{name}.json", value)
        shared.put(keys[name], value)
        done[name] = value
        yield len(calls) - len(done), done
