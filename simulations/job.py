"""The job of a simulated run: what the ServerApp does from nothing to quantized students and a report."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid
from rich.console import Console

from fedstill.device_classes import Budget, budget_of
from fedstill.exchange import ServerExchange
from fedstill.files import write_atomic, write_json
from fedstill.flower import FederatedDistillation, RoundPolicy
from fedstill.learning import State
from fedstill.release.manifest import Parent
from fedstill.tasks import load_task
from fedstill.workers import close, unordered, use_one_thread
from server.checkpoints import Checkpoints
from server.federation import Federation, Plan, Row, measure
from server.release.keys import open_keys
from server.release.sign import sign_folder
from server.release.student import Released, release
from simulations.memory import PeakMemory
from simulations.progress import RunProgress
from simulations.references import references
from simulations.report import write_report
from simulations.run_folder import CONFIG, ROUNDS, SUMMARY, Claim, commit, write_config
from simulations.scenario import dump
from simulations.setup import Setup, setup_from
from simulations.shelf import Shelf, open_shelf
from simulations.summary import summarize
from simulations.table import print_table


def plan_of(setup: Setup) -> Plan:
    """Return the federation's plan for a scenario."""
    scenario = setup.scenario
    return Plan(
        task=scenario.task,
        seed=scenario.seed,
        rounds=scenario.rounds,
        student_of={name: kind.student for name, kind in scenario.device_classes.items()},
        teacher=scenario.teacher,
        students=scenario.students,
        consensus=scenario.consensus,
        workers=setup.workers,
    )


def run(grid: Grid, context: Context) -> None:
    """Run a scenario with the hosts of a grid; everything that comes out lies in the run folder."""
    setup = setup_from(context.run_config, context.run_id)
    use_one_thread()
    console = Console(file=sys.stdout)
    with Claim(setup.out), PeakMemory() as memory, RunProgress(console) as progress:
        if not (setup.out / CONFIG).exists():
            write_config(setup.out, dump(setup.scenario))
        _run(grid, setup, progress, memory)
    print_table(json.loads((setup.out / SUMMARY).read_text()), console, setup.out)


def _run(grid: Grid, setup: Setup, progress: RunProgress, memory: PeakMemory) -> None:
    started = time.monotonic()
    scenario = setup.scenario
    open_keys(setup.keys)  # a folder that can't hold keys ends the run now, not after the training
    shelf = open_shelf(setup.assets, scenario)
    plan = plan_of(setup)
    federation = _federate(grid, setup, shelf, plan, progress)
    known = federation.knowledge
    compared: dict[str, float] = {}
    total = 2 * len(plan.student_of) + scenario.devices
    for place, (left, done) in enumerate(references(setup, plan, known.teacher_initial, setup.out / "references")):
        if place == 0:
            progress.stage("references", total, total - left)
        progress.step(total - left)
        compared = done
    released = _release(setup, shelf, plan, federation, progress)
    initial = measure(plan.task, plan.teacher.architecture, known.teacher_initial, shelf.test)
    summary = summarize(
        setup,
        known,
        federation.traffic,
        compared,
        released,
        shelf.proxy_path.stat().st_size,
        initial,
        time.monotonic() - started,
        memory.peak,
    )
    facts = {name: found.__dict__ for name, found in released.items()}
    label_names = load_task(plan.task).label_names
    write_report(setup.out, summary, known.rows, facts, shelf.partition, shelf.private.labels, label_names)
    write_json(setup.out / SUMMARY, summary)


def _federate(grid: Grid, setup: Setup, shelf: Shelf, plan: Plan, progress: RunProgress) -> Federation:
    scenario = setup.scenario
    task = load_task(scenario.task)
    shared = shelf.context(scenario.seed, task.classes)
    wire = scenario.exchange
    exchange = ServerExchange(
        shared, wire.per_round, scenario.rounds, wire.downlink, wire.duration, wire.draw == "independent"
    )

    def on_round(rows: list[Row]) -> None:
        write_atomic(setup.out / ROUNDS, "".join(json.dumps(row) + "\n" for row in rows).encode())
        scores = rows[-1]["released_accuracy"].values()
        note = f"teacher {rows[-1]['teacher_accuracy']:.3f}, students {min(scores):.3f} to {max(scores):.3f}"
        progress.step(len(rows), note)

    progress.stage("initial teacher", 1)
    federation = Federation(plan, shelf, exchange, Checkpoints(setup.out / "checkpoints"), on_round)
    progress.step(1)
    finished = federation.knowledge.round_number
    progress.stage("rounds", scenario.rounds, finished)
    policy = RoundPolicy(scenario.devices, wire.quorum, wire.timeout, wire.ttl)
    strategy = FederatedDistillation(exchange, federation.conclude, policy, first_round=finished + 1)
    strategy.traffic = federation.traffic
    strategy.start(grid, num_rounds=scenario.rounds, timeout=wire.timeout)
    return federation


def _release(
    setup: Setup, shelf: Shelf, plan: Plan, federation: Federation, progress: RunProgress
) -> dict[str, Released]:
    names = list(plan.student_of)
    close()  # the workers' memory from training is not needed beside the exporter's
    progress.stage("export and quantize", len(names))
    count = min(setup.scenario.students.calibration_samples, len(shelf.proxy))
    calibration = np.array(shelf.proxy[:count])
    calls = []
    for name in names:
        folder = setup.out / "students" / name
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left is no part of the release
        folder.mkdir(parents=True)
        budget = budget_of(name, setup.scenario.device_classes[name].budget)
        state = federation.knowledge.students[name]
        calls.append((plan.task, name, plan.student_of[name], state, calibration, shelf, folder, budget))
    released: dict[str, Released] = {}
    for place, found in unordered(release_student, calls, setup.workers):
        released[names[place]] = found
        progress.step(len(released))
    _sign(setup, {name: released[name] for name in names if not released[name].refused})
    return {name: released[name] for name in names}


def _sign(setup: Setup, accepted: Mapping[str, Released]) -> None:
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
) -> Released:
    """Export, quantize and verify one class student; runs in a worker."""
    test = (shelf.test.images, shelf.test.labels)
    return release(task, name, student, state, calibration, test, folder, budget)
