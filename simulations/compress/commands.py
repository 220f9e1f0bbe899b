"""The `compress` command: the best student of a device class, searched under its budget."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.emulation import emulated
from fedstill.errors import ConfigError, ReleaseError
from fedstill.loading import require
from server.release.home import default_folder as default_keys
from simulations.compress import LEAST_STEPS, MOST_TRIALS
from simulations.figures import milliseconds, percent, size

# What a search imports when it begins: it must be there.
require("matplotlib", "onnx", "onnxruntime", "onnxscript", "optuna", "torch", "torch_pruning")
TRIALS = 40


def compress(
    device_class: Annotated[
        str | None, typer.Argument(metavar="CLASS", help="Device class of the run, or the path of a class file.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of a finished run.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Instead: built-in scenario or path of a scenario file, run first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: runs/compress-<class>-<time>.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=MOST_TRIALS, help=f"Students to try; default: {TRIALS}.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=LEAST_STEPS, help="Steps of each one's distillation; default: the run's.")
    ] = None,
    telemetry: Annotated[
        Path | None, typer.Option(help="What `fedstill server telemetry --out` wrote; default: the run's.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="With --scenario: folder with parquet files.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the signing keys; default: the installation's own.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the search in --out; --trials may raise their number.")
    ] = False,
) -> None:
    """Search the best student of a device class under its budget: its Pareto front, and the chosen one released."""
    console = Console()
    if resume and out is None:
        raise ConfigError("--resume continues the folder named by --out; give --out")
    if resume and (device_class is not None or any(option is not None for option in (run, scenario, steps, telemetry))):
        raise ConfigError("--resume takes the plan of the folder; leave out what changes it")
    if not resume and device_class is None:
        raise ConfigError("which device class? fedstill compress CLASS --run <a finished run>")
    if not resume and (run is None) == (scenario is None):
        raise ConfigError("give either --run <a finished run> or --scenario")
    if emulated():
        raise ConfigError(
            "this processor is emulated: latencies measured here are no board's; search on a real machine"
        )
    if data_dir is not None and scenario is None:
        raise ConfigError("--data-dir is for --scenario, which is run first; a finished run has its data")
    # Imported here: torch and Optuna take seconds, and whoever asks for help needs neither.
    from fedstill.workers import prepare_torch
    from server.release.keys import open_keys
    from simulations.compress.finished import open_run
    from simulations.compress.plan import read_plan
    from simulations.compress.prepare import prepare_plan
    from simulations.compress.work import run_first, search_in
    from simulations.run_folder import check_new

    prepare_torch()
    key_folder = (keys or default_keys()).resolve()
    if resume:
        assert out is not None
        folder, material = out.resolve(), None
        plan = read_plan(out)
        if trials is not None:
            plan = plan.model_copy(update={"trials": max(trials, plan.trials)})
        finished = open_run(Path(plan.run))
    else:
        assert device_class is not None
        folder = (out or _default_folder(device_class)).resolve()
        check_new(folder)
        open_keys(key_folder)
        if run is None:
            assert scenario is not None
            run = run_first(device_class, scenario, data_dir, folder.with_name(f"{folder.name}-run"), key_folder)
        finished = open_run(run.resolve())
        plan, material = prepare_plan(device_class, finished, trials or TRIALS, steps, telemetry)
    found = search_in(folder, plan, finished, material, key_folder, console)
    _print(found, folder, console)
    if found["chosen"]["refused"]:
        raise ReleaseError(f"the chosen student is refused: {'; '.join(found['chosen']['refused'])}")


def _default_folder(device_class: str) -> Path:
    return Path("runs") / f"compress-{Path(device_class).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _print(found: dict[str, Any], out: Path, console: Console) -> None:
    from simulations.compress.finish import JSON, PICTURE, STUDENT

    title = (
        f"{found['device_class']}: front of {found['within_budget']} students within the budget, of {found['trials']}"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("student", overflow="fold")
    table.add_column("format", no_wrap=True)
    for name in ("pruned", "valid.\n%", "cross-\nentr.", "test\n%", "size", "memory", "latency\nms"):
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
            f"{row['cross_entropy']:.3f}",
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
