"""The `simulate` command: a fleet of virtual devices on this machine."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedstill.errors import ConfigError
from fedstill.workers import default_workers
from server.release.home import default_folder as default_keys
from server.release.keys import open_keys
from simulations.how import Engine, How
from simulations.methods import OWN, load_method, methods
from simulations.run_folder import CONFIG, SEEDS_PLAN, check_new, check_resumable, goes_on
from simulations.scenario import Scenario, load_scenario
from simulations.seeds import SeedsPlan, resumed
from simulations.summary_file import read_summary
from simulations.table import print_seeds, print_table


def changes_of(
    assignments: list[str], data_dir: Path | None, seed: int | None, rounds: int | None, devices: int | None
) -> list[str]:
    """Return command line options as changes of a scenario."""
    changes = list(assignments)
    if data_dir is not None:
        changes.append(f"data.dir={json.dumps(str(data_dir.resolve()))}")
    for key, value in (("seed", seed), ("rounds", rounds), ("devices", devices)):
        if value is not None:
            changes.append(f"{key}={value}")
    return changes


def seed_list(text: str) -> list[int]:
    """Return the seeds of a comma-separated list.

    Raises:
        ConfigError: a part is no number or no seed, or seeds repeat.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: not whole numbers separated by commas") from error
    if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ConfigError(f"--seeds {text}: seeds must differ, and be neither negative nor above {2**32 - 1}")
    return seeds


def simulate(
    scenario: Annotated[
        str | None, typer.Argument(help="Built-in scenario or path of a scenario file; default: digits.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with parquet files in the layout of the Hugging Face hub.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/<scenario>-<time>.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random derives from it.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several runs, for example 0,1,2; mean and std in seeds.json.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of soft labels.")] = None,
    devices: Annotated[int | None, typer.Option(help="Virtual devices.")] = None,
    method: Annotated[str | None, typer.Option(help=f"{OWN} (default), or a baseline laid over the scenario.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="local: in this process; ray: Flower's own simulation.")
    ] = Engine.local,
    hosts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Flower nodes that share the devices; default: one per 500 devices, ray: at least one per core.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Engine ray: a running cluster's head, host:port or auto; default: Ray is started here."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine; default: its cores.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the signing keys; default: the installation's own.")
    ] = None,
    fleet: Annotated[
        str | None, typer.Option(help="Built-in fleet or fleet file: devices live in virtual time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue what is in --out; --seeds named are added to it.")
    ] = False,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
) -> None:
    """Run a federated distillation on virtual devices and release one int8 ONNX student per device class."""
    console = Console()
    cores = default_workers()
    if ray_address is not None and engine is not Engine.ray:
        raise ConfigError("--ray-address goes with --engine ray")
    if seed is not None and seeds is not None:
        raise ConfigError("--seed and --seeds exclude each other")
    if resume:
        if out is None:
            raise ConfigError("--resume continues the folder named by --out; give --out")
        if assignments or any(option is not None for option in (data_dir, seed, rounds, devices, fleet)):
            raise ConfigError("--resume takes the configuration of the run folder; leave out options that change it")
    least = _least_hosts(engine, ray_address, cores)
    key_folder = (keys or default_keys()).resolve()
    how = How(
        engine,
        hosts or 0,
        workers if workers is not None else cores,
        keys=key_folder,
        ray_address=ray_address or "",
        least=least,
    )
    several = [] if seeds is None else seed_list(seeds)
    if resume:
        assert out is not None
        folder = out.resolve()
        if several or (folder / SEEDS_PLAN).is_file():
            plan = resumed(folder, several)
            _expect(scenario, method, plan.scenario, folder)
            _several(plan, folder, console, how)
            return
        _expect(scenario, method, load_scenario(str(check_resumable(folder))), folder)
        if (summary := read_summary(folder)) is not None:
            print_table(summary, console, folder)
            return
        loaded = None
    else:
        changes = changes_of(assignments or [], data_dir, several[0] if several else seed, rounds, devices)
        if fleet is not None:
            changes.insert(0, f"fleet={json.dumps(fleet)}")
        loaded = load_method(scenario or "digits", method or OWN, changes)
        folder = (out or default_folder(loaded.name)).resolve()
        check_new(folder)
        if several:
            check_all([loaded], key_folder, elsewhere=bool(how.ray_address))
            _several(SeedsPlan(seeds=several, scenario=loaded), folder, console, how)
            return
    how.begin()
    from simulations.launch import launch, prepare

    goes_on("simulate", folder / CONFIG, key_folder)
    if loaded is not None:
        prepare(loaded, folder, key_folder, elsewhere=bool(ray_address))
    launch(folder, how)


def _least_hosts(engine: Engine, ray_address: str | None, cores: int) -> int:
    """Return how many hosts share the devices at least unless said otherwise: one for each of Ray's cores.

    Raises:
        ConfigError: there is no Ray cluster at the address.
    """
    if engine is Engine.local:
        return 1
    if ray_address is None:
        return cores
    from simulations.engines.ray import connect

    return connect(ray_address)


def split(
    scenario: Annotated[str, typer.Argument(help="Built-in scenario or path of a scenario file.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
) -> None:
    """Write the proxy set of a scenario, and its virtual devices' data as folders that real devices read."""
    from simulations.device_folders import write_device_folders

    check_new(out)
    loaded = load_scenario(scenario, assignments or [])
    for path in write_device_folders(loaded, out.resolve()):
        print(path)


def default_folder(name: str) -> Path:
    """Return a new run folder's path below the working directory."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _expect(scenario: str | None, method: str | None, own: Scenario, folder: Path) -> None:
    """Make sure that a run to be resumed is the one that was named, if any was.

    Raises:
        ConfigError: it is another one.
    """
    kind = own.method.name if own.method.name in methods() else OWN
    if method not in (None, kind) or (scenario is not None and load_method(scenario, kind).name != own.name):
        raise ConfigError(f"{folder} has a run of {own.name}; leave scenario and --method out to resume it")


def check_all(scenarios: Sequence[Scenario], keys: Path, *, elsewhere: bool = False) -> None:
    """Check all that can be wrong with several runs of one split, before anything is written.

    Args:
        scenarios: what runs, whatever the seed.
        keys: folder of the keys that sign the releases.
        elsewhere: whether other machines compute.
    """
    from simulations.shelf import split  # with torch, as what follows
    from simulations.validate import validate

    for scenario in scenarios:
        validate(scenario, elsewhere=elsewhere)
    split(scenarios[0])
    open_keys(keys)


def _several(plan: SeedsPlan, folder: Path, console: Console, how: How) -> None:
    """Run what is missing of several seeds, and combine their summaries."""
    from simulations.launch import launch_seeds

    goes_on("simulate", folder / SEEDS_PLAN, how.keys)
    plan.write(folder)
    print_seeds(launch_seeds(plan.load, plan.seeds, folder, how), console, folder)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.command()(simulate)
    app.command()(split)
