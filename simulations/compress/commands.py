"""The `compress` command: the best student of a device class, searched under its budget."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedstill.errors import ConfigError, ReleaseError
from fedstill.files import write_atomic
from fedstill.learning import State
from fedstill.models.shapes import Shape
from fedstill.workers import default_workers, prepare_torch
from server.compress.figures import Figures, measure
from server.compress.learn import Candidate, Material, learn
from server.release.home import default_folder as default_keys
from server.release.keys import open_keys
from simulations.compress.finish import JSON, PICTURE, STUDENT, finish
from simulations.compress.finished import Finished, open_run
from simulations.compress.front import holding, nearest
from simulations.compress.plan import PLAN, CompressPlan, class_of, read_plan
from simulations.compress.prepare import prepare_plan, space_of
from simulations.compress.search import Evaluate, Search
from simulations.figures import milliseconds, percent, size
from simulations.how import Engine, How
from simulations.launch import launch, prepare
from simulations.progress import RunProgress
from simulations.run_folder import Claim, check_new
from simulations.scenario import load_scenario

TRIALS = 40


def compress(
    device_class: Annotated[
        str | None, typer.Argument(metavar="CLASS", help="Device class of the run, or the path of a class file.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of a finished run.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Instead: built-in scenario or path of a scenario file, run first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: runs/compress-<class>-<time>].")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help=f"Students to try [default: {TRIALS}].")] = None,
    steps: Annotated[
        int | None, typer.Option(min=16, help="Steps of each one's distillation [default: the run's].")
    ] = None,
    telemetry: Annotated[
        Path | None, typer.Option(help="What `fedstill server telemetry --out` wrote [default: the run's].")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="With --scenario: folder with parquet files.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the signing keys [default: the installation's own].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the search in --out; --trials may raise their number.")
    ] = False,
) -> None:
    """Search the best student of a device class under its budget: its Pareto front, and the chosen one released."""
    console = Console()
    prepare_torch()
    key_folder = (keys or default_keys()).resolve()
    if resume:
        if out is None:
            raise ConfigError("--resume continues the folder named by --out; give --out")
        if device_class is not None or any(option is not None for option in (run, scenario, steps, telemetry)):
            raise ConfigError("--resume takes the plan of the folder; leave out what changes it")
        plan = read_plan(out)
        if trials is not None:
            plan = plan.model_copy(update={"trials": max(trials, plan.trials)})
        _search(out.resolve(), plan, open_run(Path(plan.run)), None, key_folder, console)
        return
    if device_class is None:
        raise ConfigError("which device class? fedstill compress CLASS --run <a finished run>")
    if (run is None) == (scenario is None):
        raise ConfigError("give either --run <a finished run> or --scenario")
    folder = (out or _default_folder(device_class)).resolve()
    check_new(folder)
    open_keys(key_folder)
    if run is None:
        assert scenario is not None
        run = _run(device_class, scenario, data_dir, folder.with_name(f"{folder.name}-run"), key_folder)
    finished = open_run(run.resolve())
    plan, material = prepare_plan(device_class, finished, trials or TRIALS, steps, telemetry)
    _search(folder, plan, finished, material, key_folder, console)


def _default_folder(device_class: str) -> Path:
    return Path("runs") / f"compress-{Path(device_class).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _run(device_class: str, scenario: str, data_dir: Path | None, folder: Path, keys: Path) -> Path:
    """Run a scenario in a folder beside the search's, and return it."""
    changes = [] if data_dir is None else [f"data.dir={json.dumps(str(data_dir.resolve()))}"]
    loaded = load_scenario(scenario, changes)
    class_of(device_class, loaded)  # before the time that a run takes
    prepare(loaded, folder, keys)
    launch(folder, How(Engine.local, 0, default_workers(), keys=keys))
    return folder


def _search(
    out: Path, plan: CompressPlan, run: Finished, material: Material | None, keys: Path, console: Console
) -> None:
    """Run the trials that are missing, then write and print what came out."""
    with Claim(out), RunProgress(console) as progress:
        write_atomic(out / PLAN, tomli_w.dumps(plan.model_dump(exclude_none=True)).encode())
        search = Search(out, space_of(plan.shape, plan.formats, run), plan.budget, run.scenario.seed)
        try:
            if search.finished < plan.trials:
                (out / JSON).unlink(missing_ok=True)  # it is there when all is done
                evaluate = partial(_evaluate, plan=plan, material=material or run.material(plan.steps))
                _try(search, evaluate, plan.trials, progress)
            measured, failures = search.tried, search.failures
        finally:
            search.close()
        if not (out / JSON).exists():
            held = holding(measured, plan.budget)
            if not held:
                what = nearest(measured, plan.budget) if measured else failures[-1]
                raise ConfigError(f"none of {plan.trials} students meets the budget; what comes nearest: {what}")
            progress.stage("release", 1)
            finish(out, plan, run, measured, held, open_keys(keys))
            progress.step(1)
    found = json.loads((out / JSON).read_text())
    _print(found, out, console)
    if found["chosen"]["refused"]:
        raise ReleaseError(f"the chosen student is refused: {'; '.join(found['chosen']['refused'])}")


def _try(search: Search, evaluate: Evaluate, trials: int, progress: RunProgress) -> None:
    """Run the trials that are missing."""
    progress.stage("students", trials, search.finished)
    while search.finished < trials:
        tried = search.step(evaluate)
        progress.step(search.finished, "" if tried is None else f"{tried.student} {tried.figures.accuracy:.3f}")


def _evaluate(candidate: Candidate, plan: CompressPlan, material: Material) -> tuple[Shape, State, Figures]:
    shape, state = learn(candidate, material)
    return shape, state, measure(shape, state, candidate.numeric, material, plan.budget, plan.latency.scale)


def _print(found: dict[str, Any], out: Path, console: Console) -> None:
    title = (
        f"{found['device_class']}: front of {found['within_budget']} students within the budget, of {found['trials']}"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("student", overflow="fold")
    table.add_column("format", no_wrap=True)
    for name in ("pruned", "valid.\n%", "test\n%", "size", "memory", "latency\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    chosen, hand_made, rows = found["chosen"], found["hand_made"], found["front"]
    if hand_made is not None and all(row["trial"] != hand_made["trial"] for row in rows):
        rows = [*rows, hand_made]
    marked = {"chosen": chosen, "hand-made": hand_made}
    for row in rows:
        own = {name: one for name, one in marked.items() if one is not None and one["trial"] == row["trial"]}
        test = next((percent(one["test_accuracy"]) for one in own.values()), "")
        table.add_row(
            Text(" ".join([row["student"], *(f"({name})" for name in own)])),
            row["format"],
            f"{100 * row['sparsity']:.0f}%" if row["sparsity"] else "",
            percent(row["accuracy"]),
            test,
            size(row["bytes"]),
            size(row["memory_bytes"]),
            milliseconds(row["latency_ms"]),
            style="bold" if "chosen" in own else "",
        )
    console.print(table)
    source = "this machine" if found["latency_from"] == "this machine" else "the class's devices, scaled"
    console.print(Text(f"latency from {source}; chosen: {found['rule']}", style="dim"))
    for name in (JSON, PICTURE, STUDENT):
        console.print(Text(str(out / name)), soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add this room's command."""
    app.command()(compress)
