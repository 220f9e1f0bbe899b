"""The job of a simulated run: what the ServerApp does from nothing to quantized students and a report."""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid
from rich.console import Console

from fedstill.exchange import ServerExchange
from fedstill.files import write_atomic, write_json
from fedstill.flower import FederatedDistillation, RoundPolicy
from fedstill.flower.strategy import IN_MEMORY, size_of_votes
from fedstill.rounds import Owner
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server.checkpoints import Checkpoints
from server.federation import Federation, Plan, Row, measure
from server.release.keys import open_keys
from simulations.backbones import make_backbones
from simulations.baselines import job as baselines
from simulations.fleet.run import clock_of
from simulations.fleet.strategy import TimedDistillation
from simulations.fleet.totals import totals
from simulations.memory import Spent
from simulations.progress import RunProgress
from simulations.references import alone, references
from simulations.release import release_students
from simulations.run_folder import CONFIG, ROUNDS, SUMMARY, Claim, write_config
from simulations.scenario import dump
from simulations.setup import Setup, setup_from
from simulations.shelf import Shelf, open_shelf
from simulations.summary import summarize
from simulations.table import print_table
from simulations.telemetry import adopt


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
        observers=frozenset(name for name, kind in scenario.device_classes.items() if kind.learner == "observer"),
    )


def run(grid: Grid, context: Context) -> None:
    """Run a scenario with the hosts of a grid; everything that comes out lies in the run folder."""
    setup = setup_from(context.run_config, context.run_id)
    prepare_torch()
    console = Console(file=sys.stdout)
    with Claim(setup.out), RunProgress(console) as progress:
        if not (setup.out / CONFIG).exists():
            write_config(setup.out, dump(setup.scenario))
        with Spent(setup.out) as spent:  # which writes there: only a folder with a configuration can be resumed
            adopt(setup.scenario, setup.out)
            _run(grid, setup, progress, spent)
    if context.run_config.get("table", True):
        print_table(json.loads((setup.out / SUMMARY).read_text()), console, setup.out)


def _run(grid: Grid, setup: Setup, progress: RunProgress, spent: Spent) -> None:
    open_keys(setup.keys)  # a folder that can't hold keys ends the run now, not after the training
    shelf = open_shelf(setup.assets, setup.scenario)
    if shelf.shared:
        few, many = len(shelf.private.labels), setup.scenario.devices
        progress.note(f"{few:,} private samples are few for {many:,} devices: drawn with replacement")
    if setup.scenario.method.server:
        baselines.run(grid, setup, progress, spent)
        return
    scenario = setup.scenario
    plan = plan_of(setup)
    make_backbones(scenario, shelf)
    federation = federate(grid, setup, shelf, plan, progress)
    known = federation.knowledge
    compared: dict[str, float] = {}
    few, many = len(alone(scenario)), scenario.devices
    if 0 < few < many:
        progress.note(f"local-only training of {few:,} of {many:,} devices, as references.local_only says")
    took_part = None if federation.clock is None else federation.clock.rounds_of
    folder = setup.out / "references"
    for place, (left, done) in enumerate(references(setup, plan, known.teacher_initial, folder, took_part)):
        compared = done
        if not left and not done:  # none is wanted
            continue
        if place == 0:
            progress.stage("references", left + len(done), len(done))
        progress.step(len(done))
    released = release_students(setup, shelf, known.students, progress, federation.labels())
    initial = None
    if plan.teacher is not None:
        initial = measure(plan.task, plan.teacher.architecture, known.teacher_initial, shelf.test)
    summary = summarize(
        setup,
        known,
        federation.traffic,
        compared,
        released,
        shelf.proxy_path.stat().st_size,
        initial,
        spent.seconds,
        spent.peak,
    )
    if (clock := clock_of(scenario, setup.out)) is not None:
        summary["fleet"] = totals(clock.fleet, known.rows)
    facts = {name: found.__dict__ for name, found in released.items()}
    label_names = load_task(plan.task).label_names
    from simulations.report import write_report  # plots: see simulations.how

    write_report(setup.out, summary, known.rows, facts, shelf.partition, shelf.private.labels, label_names)
    write_json(setup.out / SUMMARY, summary)


def federate(
    grid: Grid,
    setup: Setup,
    shelf: Shelf,
    plan: Plan,
    progress: RunProgress,
    attempts: int = 1,
    owners: Mapping[int, Owner] | None = None,
    between: Callable[[int], None] | None = None,
) -> Federation:
    """Run the rounds that are missing, and return what came out.

    Args:
        grid: the hosts.
        setup: the run.
        shelf: what the server holds.
        plan: the federation's plan.
        progress: told of each round.
        attempts: how often a round's message is sent to a host that gets lost meanwhile.
        owners: host and class of each device, where they are known.
        between: called before the first round, and after each but the last, whose checkpoint is written, with how
            many rounds are finished.
    """
    scenario = setup.scenario
    task = load_task(scenario.task)
    shared = shelf.context(scenario.seed, task.classes)
    wire = scenario.exchange
    exchange = ServerExchange(
        shared,
        wire.per_round,
        scenario.rounds,
        wire.downlink,
        wire.duration,
        wire.draw == "independent",
        class_encodings={name: kind.downlink for name, kind in scenario.device_classes.items() if kind.downlink},
        uplink=wire.uplink,
        class_uplinks={name: kind.uplink for name, kind in scenario.device_classes.items() if kind.uplink},
        entropy_coded=wire.entropy_coding,
        delta=wire.delta,
        priors=scenario.device.send_class_prior,
    )

    def on_round(rows: list[Row]) -> None:
        write_atomic(setup.out / ROUNDS, "".join(json.dumps(row) + "\n" for row in rows).encode())
        scores = rows[-1]["released_accuracy"].values()
        note = f"students {min(scores):.3f} to {max(scores):.3f}"
        if rows[-1]["teacher_accuracy"] is not None:
            note = f"teacher {rows[-1]['teacher_accuracy']:.3f}, {note}"
        progress.step(len(rows), note)
        if between is not None and len(rows) < scenario.rounds:
            between(len(rows))

    checkpoints = Checkpoints(setup.out / "checkpoints")
    teaches = plan.teacher is not None and not checkpoints.exist()
    if teaches:
        progress.stage("initial teacher", 1)
    clock = clock_of(scenario, setup.out)
    size = size_of_votes(wire.active or scenario.devices, wire.per_round, task.classes)
    if clock is not None and clock.lets_answers_be_late and size > IN_MEMORY:
        progress.note(f"answers may be late: {size / 1e9:.1f} GB of memory for each round that still awaits some")
    federation = Federation(plan, shelf, exchange, checkpoints, on_round, clock)
    if teaches:
        progress.step(1)
    finished = federation.knowledge.round_number
    if between is not None:
        between(finished)
    progress.stage("rounds", scenario.rounds, finished)
    policy = RoundPolicy(
        scenario.devices,
        wire.quorum,
        wire.timeout,
        wire.ttl,
        wire.active,
        scenario.seed,
        attempts=attempts,
        silence=min(RoundPolicy.silence, wire.timeout / 4),
        owners=owners,
    )
    rounds = FederatedDistillation if clock is None else partial(TimedDistillation, clock)
    strategy = rounds(exchange, federation.conclude, policy, finished + 1, scratch=setup.out)
    strategy.traffic = federation.traffic
    strategy.asking, strategy.heard = progress.asking, progress.heard
    strategy.start(grid, num_rounds=scenario.rounds, timeout=wire.timeout)
    return federation
