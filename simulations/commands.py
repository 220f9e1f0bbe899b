"""The `simulate` command: a fleet of virtual devices on this machine."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from client.app import app as client_app
from fedstill.errors import ConfigError, RunFolderError
from fedstill.files import write_json
from fedstill.workers import default_workers
from server.app import app as server_app
from server.release.keys import default_folder, open_keys
from simulations.engines.local import run_local
from simulations.report import write_seeds_report
from simulations.run_folder import CONFIG, ROUNDS, SUMMARY, Claim, check_new, check_resumable, write_config
from simulations.scenario import Scenario, dump, load_scenario
from simulations.seeds import combine
from simulations.shelf import open_shelf, split
from simulations.table import print_seeds, print_table
from simulations.validate import validate

SEEDS = "seeds.json"


class Engine(StrEnum):
    """How messages reach the hosts."""

    local = "local"
    ray = "ray"


def _run(out: Path, engine: Engine, hosts: int, workers: int, keys: Path) -> None:
    """Run a scenario whose configuration lies in `out` already."""
    run_config: dict[str, bool | float | int | str] = {
        "scenario": str(out / CONFIG),
        "out": str(out),
        "engine": engine.value,
        "workers": workers,
        "keys": str(keys),
        "job": "simulations.job:run",
        "host": "simulations.host:build",
    }
    if engine is Engine.local:
        run_local(server_app, client_app, hosts, run_config)
        return
    from simulations.engines.ray import run_ray

    # Ray spreads hosts over cores already, so a host computes its devices one by one.
    run_ray(server_app, client_app, hosts, run_config, {**run_config, "workers": 1})


def _prepare(scenario: Scenario, out: Path, keys: Path | None = None) -> None:
    """Check everything that can be wrong with a new run before anything is written, then begin its folder."""
    check_new(out)
    validate(scenario)
    files = split(scenario)
    open_keys(keys or default_folder())
    with Claim(out):
        write_config(out, dump(scenario))  # first: from here on the run can be resumed
        open_shelf(out / "assets", scenario, files)


def _changes(
    assignments: list[str], data_dir: Path | None, seed: int | None, rounds: int | None, devices: int | None
) -> list[str]:
    changes = list(assignments)
    if data_dir is not None:
        changes.append(f"data.dir={json.dumps(str(data_dir.resolve()))}")
    for key, value in (("seed", seed), ("rounds", rounds), ("devices", devices)):
        if value is not None:
            changes.append(f"{key}={value}")
    return changes


def _seed_list(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: not whole numbers separated by commas") from error
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError(f"--seeds {text}: seeds must differ and not be negative")
    return seeds


def simulate(
    scenario: Annotated[str, typer.Argument(help="Built-in scenario or path of a scenario file.")] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with parquet files in the layout of the Hugging Face hub.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<scenario>-<time>].")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random derives from it.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several runs, for example 0,1,2; mean and std in seeds.json.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of soft labels.")] = None,
    devices: Annotated[int | None, typer.Option(help="Virtual devices.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="local: in this process; ray: Flower's own simulation.")
    ] = Engine.local,
    hosts: Annotated[
        int | None, typer.Option(min=1, help="Flower nodes that share the devices [default: 1, ray: one per core].")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine [default: its cores].")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the signing keys [default: the installation's own].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its last round.")] = False,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
) -> None:
    """Run a federated distillation on virtual devices and release one int8 ONNX student per device class."""
    console = Console()
    cores = default_workers()
    used_workers = workers if workers is not None else cores
    used_hosts = hosts if hosts is not None else (1 if engine is Engine.local else cores)
    if seed is not None and seeds is not None:
        raise ConfigError("--seed and --seeds exclude each other")
    if resume:
        changed = [*(assignments or []), *[o for o in (data_dir, seed, rounds, devices) if o is not None]]
        if out is None:
            raise ConfigError("--resume continues the folder named by --out; give --out")
        if changed:
            raise ConfigError("--resume takes the configuration of the run folder; leave out options that change it")
    changes = _changes(assignments or [], data_dir, seed, rounds, devices)
    key_folder = (keys or default_folder()).resolve()
    if seeds is not None:
        _several(
            scenario, _seed_list(seeds), changes, out, resume, console, (engine, used_hosts, used_workers, key_folder)
        )
        return
    if resume:
        assert out is not None
        folder = out.resolve()
        loaded = load_scenario(str(check_resumable(folder)))
        if (folder / SUMMARY).exists():
            print_table(json.loads((folder / SUMMARY).read_text()), console, folder)
            return
    else:
        loaded = load_scenario(scenario, changes)
        folder = (out or _default_folder(loaded.name)).resolve()
        _prepare(loaded, folder, key_folder)
    _run(folder, engine, used_hosts, used_workers, key_folder)


def _default_folder(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _several(
    scenario: str,
    seeds: list[int],
    changes: list[str],
    out: Path | None,
    resume: bool,
    console: Console,
    how: tuple[Engine, int, int, Path],
) -> None:
    """Run one scenario with several seeds, and combine their summaries."""
    first = load_scenario(scenario, [*changes, f"seed={seeds[0]}"])
    folder = (out or _default_folder(first.name)).resolve()
    if resume and not folder.is_dir():
        raise RunFolderError(f"{folder}: no run to resume here")
    if not resume:
        check_new(folder)
    summaries: list[dict[str, Any]] = []
    curves: dict[int, list[dict[str, Any]]] = {}
    for seed in seeds:
        own = folder / f"seed-{seed}"
        if not (own / CONFIG).exists():
            _prepare(load_scenario(scenario, [*changes, f"seed={seed}"]), own, how[-1])
        if not (own / SUMMARY).exists():
            _run(own, *how)
        summaries.append(json.loads((own / SUMMARY).read_text()))
        curves[seed] = [json.loads(line) for line in (own / ROUNDS).read_text().splitlines()]
    combined = combine(summaries)
    write_seeds_report(folder, combined, curves)
    write_json(folder / SEEDS, combined)
    print_seeds(combined, console, folder)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.command()(simulate)
