"""A scenario on real devices: what the server prepares, and the job of its ServerApp.

The server holds its labelled samples, the proxy set and the test set of the scenario's task. The private samples are
what the devices have: they are split off, as in a simulation, and not used.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.serverapp import Grid
from rich.console import Console

from fedstill.errors import ConfigError, PausedError
from fedstill.files import write_atomic, write_json
from fedstill.flower.streaming import StreamingGrid
from fedstill.models import ARCHITECTURES
from fedstill.plan import ClassPlan, DevicePlan, TaskPlan
from fedstill.release.verify import digest
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server.deployment.home import ServerHome
from server.deployment.runs import PAUSED, read_record
from server.federation import Federation, measure
from server.release.keys import open_keys
from simulations.backbones import make_backbones
from simulations.job import federate, plan_of
from simulations.memory import Spent
from simulations.progress import RunProgress
from simulations.release import release_students
from simulations.run_folder import CONFIG, SUMMARY, Claim, check_new, commit, write_config
from simulations.scenario import Scenario, dump, load_scenario, raw_scenario, resolved
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf, split
from simulations.telemetry import adopt
from simulations.validate import validate

if TYPE_CHECKING:  # see simulations.release
    from server.release.student import Released

JOB = "simulations.deployed:run"
ATTEMPTS = 5
"""How often a round's message is sent to a device that gets lost before it answers."""
PRIVATE = ("private-", "part-")


def prepare(name: str, changes: Iterable[str], out: Path, fleet: Mapping[int, str], keys: Path) -> None:
    """Check everything that can be wrong with a new run, then begin its folder.

    Args:
        name: a built-in scenario or the path of a scenario file.
        changes: assignments such as `rounds=3`.
        out: the run folder.
        fleet: class of each enrolled device.
        keys: folder of the keys that sign the releases.

    Raises:
        ConfigError: the scenario or a change is wrong, it has no student for a device's class, or it asks for what real
            devices don't do.
    """
    check_new(out)
    scenario = of_fleet(name, changes, fleet)
    _check_real(scenario)
    validate(scenario, elsewhere=True)
    files = {key: array for key, array in split(scenario).items() if not key.startswith(PRIVATE)}
    open_keys(keys)
    with Claim(out):
        write_config(out, dump(scenario))
        adopt(scenario, out)
        make_backbones(scenario, open_shelf(out / "assets", scenario, files))


def _check_real(scenario: Scenario) -> None:
    """Make sure that real devices can do what a scenario asks of its devices.

    Raises:
        ConfigError: they can't.
    """
    if scenario.method.server or scenario.method.device:
        raise ConfigError(f"method {scenario.method.name} is one for simulations; real devices don't know it")
    if scenario.attack.share:
        raise ConfigError("attack.share is for simulations: real devices can't be told to be hostile")
    if scenario.stream.window:
        raise ConfigError("stream is for simulations: real devices have what their data files hold")
    if scenario.fleet is not None:
        raise ConfigError("fleet is for simulations: real devices have speeds and hours of their own")
    for name, kind in scenario.device_classes.items():
        if kind.student not in ARCHITECTURES:
            raise ConfigError(f"device_classes.{name}.student: {kind.student!r} is not built in; devices load no other")


def of_fleet(name: str, changes: Iterable[str], fleet: Mapping[int, str]) -> Scenario:
    """Return a scenario with the devices that there are, and of its classes those that they are of.

    Raises:
        ConfigError: there is no device, or the scenario has no student for one's class.
    """
    if not fleet:
        raise ConfigError("no device is enrolled; `fedstill server token` prints what enrols one")
    raw = raw_scenario(name)
    known = raw.get("device_classes", {})
    for number, kind in sorted(fleet.items()):
        if kind not in known:
            raise ConfigError(
                f"device {number} is of class {kind}, for which scenario {name} has no student; add one, or "
                f"`fedstill server revoke {number}`"
            )
    raw["device_classes"] = {kind: known[kind] for kind in known if kind in fleet.values()}
    return resolved(raw, [*changes, f"devices={len(fleet)}"], f"scenario {name}")


def run_config(out: Path) -> dict[str, str]:
    """Return what the run configuration tells server and devices of the run in `out`."""
    scenario = load_scenario(str(out / CONFIG))
    plan = device_plan(scenario, open_shelf(out / "assets", scenario))
    return {"job": JOB, "plan": plan.model_dump_json(exclude_none=True), "out": str(out)}


def parcels(out: Path) -> list[tuple[str, Path]]:
    """Return what the devices of the run in `out` have to fetch before its first round, each with its kind."""
    scenario = load_scenario(str(out / CONFIG))
    shelf = open_shelf(out / "assets", scenario)
    light = [name for name, kind in scenario.device_classes.items() if kind.learner != "torch"]
    return [("proxy", shelf.proxy_path), *(("backbone", shelf.backbone_path(name)) for name in light)]


def device_plan(scenario: Scenario, shelf: Shelf) -> DevicePlan:
    """Return what a scenario's devices have to know."""
    task = load_task(scenario.task)
    shared = shelf.context(scenario.seed, task.classes)
    return DevicePlan(
        seed=scenario.seed,
        task=TaskPlan.of(task),
        proxy_digest=shared.proxy_digest.hex(),
        proxy_size=shared.proxy_size,
        device=scenario.device,
        classes={
            name: ClassPlan(
                student=kind.student,
                uplink=kind.uplink or scenario.exchange.uplink,
                learner=None if kind.learner == "torch" else kind.learner,
                backbone=None if kind.learner == "torch" else digest(shelf.backbone_path(name))[1],
            )
            for name, kind in scenario.device_classes.items()
        },
        entropy_coding=scenario.exchange.entropy_coding,
        delta=scenario.exchange.delta,
    )


def run(grid: Grid, context: Context) -> None:
    """Run a prepared scenario with the devices of a grid, from its last finished round."""
    out = Path(str(context.run_config["out"]))
    record = read_record(out)
    setup = Setup(load_scenario(str(out / CONFIG)), out, workers=1, engine="deployed", keys=record.keys)
    prepare_torch()
    console = Console(file=sys.stdout)
    with Claim(setup.out), Spent(setup.out) as spent, RunProgress(console) as progress:
        shelf = open_shelf(setup.assets, setup.scenario)
        plan = plan_of(setup)

        def pause(finished: int) -> None:
            if ServerHome(record.home).draining:
                write_atomic(out / PAUSED, b"")
                raise PausedError(f"paused after round {finished}, as the server drains")

        federation = federate(StreamingGrid(grid), setup, shelf, plan, progress, ATTEMPTS, record.owners, pause)
        released = release_students(setup, shelf, federation.knowledge.students, progress, federation.labels())
        summary = {
            **_summary(setup, federation, shelf, released),
            "timing": {"wall_seconds": spent.seconds, "rounds_seconds": federation.knowledge.seconds},
            "peak_rss_bytes": spent.peak,
        }
        write_json(setup.out / SUMMARY, summary)


def _summary(setup: Setup, federation: Federation, shelf: Shelf, released: "Mapping[str, Released]") -> dict[str, Any]:
    """Return the summary of a run, in the form of a simulation's as far as a server can know it."""
    plan, known, traffic = federation.plan, federation.knowledge, federation.traffic
    classes = federation.exchange.device_classes
    teacher = None
    if plan.teacher is not None:
        initial = measure(plan.task, plan.teacher.architecture, known.teacher_initial, shelf.test)
        teacher = {"accuracy_initial": initial, "accuracy_final": known.rows[-1]["teacher_accuracy"]}
    return {
        "scenario": setup.scenario.name,
        "seed": plan.seed,
        "rounds": plan.rounds,
        "engine": setup.engine,
        "commit": commit(),
        "teacher": teacher,
        "wire": {
            "uplink_bytes": sum(traffic.uplink.values()),
            "downlink_bytes": sum(traffic.downlink.values()),
            "messages": traffic.messages,
            "envelope_bytes": traffic.envelope_bytes,
        },
        "device_classes": {
            name: {
                "devices": sum(kind == name for kind in classes.values()),
                "student": plan.student_of[name],
                "learner": setup.scenario.device_classes[name].learner,
                "accuracy_devices": known.rows[-1]["device_accuracy"][name],
                "accuracy_released": facts.accuracy_int8,
                "artifact": f"students/{name}/{facts.artifact}",
                "format": facts.format,
                "refused": facts.refused,
            }
            for name, facts in released.items()
        },
    }
