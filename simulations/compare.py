"""The `compare` command: several methods on the same split and seeds, one table, one picture."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tomli_w
import typer
from pydantic import Field
from rich.console import Console

from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError, RunFolderError
from fedstill.files import write_atomic
from fedstill.workers import default_workers
from server.release.home import default_folder as default_keys
from simulations.commands import changes_of, check_all, default_folder, seed_list
from simulations.how import Engine, How
from simulations.methods import load_method, methods
from simulations.run_folder import check_new, goes_on
from simulations.scenario import Scenario, load_scenario
from simulations.summary_file import read_finished

PLAN, REFERENCES = "compare.toml", "references"


class ComparePlan(Settings):
    """What a comparison runs; lies in its folder, so that it can be resumed."""

    scenario: str
    """Built-in name or absolute path."""
    methods: list[str] = Field(min_length=1)
    """Names of methods, in the order of the table."""
    seeds: list[int] = Field(min_length=1)
    """Seeds of every method."""
    changes: tuple[str, ...] = ()
    """Changes of the scenario."""
    target: float | None = Field(default=None, gt=0, le=100)
    """Accuracy in percent whose cost in rounds and bytes is told."""

    def load(self, method: str, seed: int) -> Scenario:
        """Return the scenario as a method runs it with a seed."""
        return load_method(self.scenario, method, [*self.changes, f"seed={seed}"])


def _check(plan: ComparePlan, keys: Path) -> None:
    """Check all that can be wrong with the runs of a plan, before anything is written."""
    repeated = sorted({name for name in plan.methods if plan.methods.count(name) > 1})
    if repeated:
        raise ConfigError(f"method {repeated[0]!r} is named twice")
    check_all([plan.load(name, plan.seeds[0]) for name in plan.methods], keys)


def _resumed(out: Path, names: list[str], target: float | None) -> ComparePlan:
    """Return the plan of the comparison in `out`, with more methods and another target where they are named."""
    if not (out / PLAN).is_file():
        raise RunFolderError(f"{out}: no comparison to resume here ({PLAN} is missing)")
    plan = parse(ComparePlan, read_toml(out / PLAN), str(out / PLAN))
    more = [name for name in names if name not in plan.methods]
    raw = {**plan.model_dump(), "methods": [*plan.methods, *more]}
    return parse(ComparePlan, raw if target is None else {**raw, "target": target}, "compare")


def _run(plan: ComparePlan, out: Path, how: How, console: Console) -> None:
    """Run what is missing; table and picture are written anew after each method."""
    from simulations.comparison import Entry, print_comparison, write_comparison  # plots: see simulations.how
    from simulations.launch import launch_seeds

    entries: list[Entry] = []
    target = None if plan.target is None else plan.target / 100
    total = len(plan.methods) * len(plan.seeds)
    for place, name in enumerate(plan.methods):

        def announce(seed: int, name: str = name, place: int = place) -> None:
            number = place * len(plan.seeds) + plan.seeds.index(seed) + 1
            console.print(f"run {number} of {total}: {name}, seed {seed}", style="bold", highlight=False)

        folder = out / name
        launch_seeds(lambda seed, name=name: plan.load(name, seed), plan.seeds, folder, how, announce)  # type: ignore[misc]
        runs = [read_finished(folder / f"seed-{seed}") for seed in plan.seeds]
        summaries, rounds = [summary for summary, _ in runs], [rows for _, rows in runs]
        entries.append(Entry(name, plan.load(name, plan.seeds[0]).method.sends_weights, summaries, rounds))
        write_comparison(out, plan.scenario, plan.seeds, entries, target)
    print_comparison(out, plan.scenario, plan.seeds, entries, target, console)


def compare(
    names: Annotated[list[str] | None, typer.Argument(metavar="METHOD...", help="Methods to compare.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Built-in scenario or path of a scenario file; default: digits.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of every method, for example 0,1,2; default: 0.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with parquet files in the layout of the Hugging Face hub.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: runs/compare-<scenario>-<time>.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of every method.")] = None,
    devices: Annotated[int | None, typer.Option(help="Virtual devices.")] = None,
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
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine; default: its cores.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the signing keys; default: the installation's own.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the comparison in --out; METHODs named are added to it.")
    ] = False,
    target: Annotated[
        float | None, typer.Option(help="Accuracy in percent whose cost in rounds and bytes is told.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
) -> None:
    """Run several methods on the same data, split and seeds: one table, one picture of accuracy against bytes."""
    console = Console()
    cores = default_workers()
    least = 1 if engine is Engine.local else cores
    key_folder = (keys or default_keys()).resolve()
    how = How(engine, hosts or 0, workers or cores, table=False, keys=key_folder, least=least)
    changes = changes_of(assignments or [], data_dir, None, rounds, devices)
    if resume:
        if out is None:
            raise ConfigError("--resume continues the folder named by --out; give --out")
        if changes or scenario is not None or seeds is not None:
            raise ConfigError("--resume takes the configuration of the folder; leave out options that change it")
        folder = out.resolve()
        plan = _resumed(folder, names or [], target)
        _check(plan, key_folder)
    else:
        if not names:
            raise ConfigError(f"name the methods to compare: {', '.join(methods())}")
        named = scenario or "digits"
        place = str(Path(named).resolve()) if named.endswith(".toml") else named
        raw = {
            "scenario": place,
            "methods": names,
            "seeds": seed_list("0" if seeds is None else seeds),
            "changes": tuple(changes),
        }
        plan = parse(ComparePlan, {**raw, "target": target}, "compare")
        folder = (out or default_folder(f"compare-{load_scenario(place).name}")).resolve()
        check_new(folder)
        _check(plan, key_folder)
    goes_on("compare", folder / PLAN, key_folder)
    write_atomic(folder / PLAN, tomli_w.dumps(plan.model_dump(exclude_none=True)).encode())
    _run(plan, folder, replace(how, references=folder / REFERENCES), console)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


__all__ = ["PLAN", "ComparePlan", "compare", "register"]
