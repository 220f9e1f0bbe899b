"""Begin and run simulations: one, or several seeds of one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from client.app import app as client_app
from fedstill.files import write_json
from server.app import app as server_app
from server.release.home import default_folder
from server.release.keys import open_keys
from simulations.engines.local import run_local
from simulations.how import Engine, How
from simulations.run_folder import CONFIG, SUMMARY, Claim, check_new, write_config
from simulations.scenario import Scenario, dump, load_scenario
from simulations.seeds import combine
from simulations.setup import hosts_of
from simulations.shelf import open_shelf, split
from simulations.summary_file import read_finished
from simulations.validate import validate

SEEDS = "seeds.json"


def prepare(scenario: Scenario, out: Path, keys: Path | None = None, *, elsewhere: bool = False) -> None:
    """Check everything that can be wrong with a new run before anything is written, then begin its folder."""
    check_new(out)
    validate(scenario, elsewhere=elsewhere)
    files = split(scenario)
    open_keys(keys or default_folder())
    with Claim(out):
        write_config(out, dump(scenario))  # first: from here on the run can be resumed
        open_shelf(out / "assets", scenario, files)


def launch(out: Path, how: How) -> None:
    """Run a scenario whose configuration lies in `out` already."""
    run_config: dict[str, bool | float | int | str] = {
        "scenario": str(out / CONFIG),
        "out": str(out),
        "engine": how.engine.value,
        "workers": how.workers,
        "table": how.table,
        "keys": str(how.keys),
        "references": str(how.references or ""),
        "job": "simulations.job:run",
        "host": "simulations.host:build",
    }
    how.begin()
    devices = load_scenario(str(out / CONFIG)).devices
    hosts = min(devices, how.hosts or max(how.least, hosts_of(devices)))  # one without devices would be asked for them
    if how.engine is Engine.local:
        run_local(server_app, client_app, hosts, run_config)
        return
    from simulations.engines.ray import run_ray

    # Ray spreads hosts over cores already, so a host computes its devices one by one.
    run_ray(server_app, client_app, hosts, run_config, {**run_config, "workers": 1}, how.ray_address)


def launch_seeds(
    load: Callable[[int], Scenario],
    seeds: Sequence[int],
    folder: Path,
    how: How,
    announce: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run what is missing of several seeds in `folder`/seed-<n>, write and return `seeds.json`.

    Args:
        load: returns the scenario of a seed.
        seeds: at least one.
        folder: of the seeds' run folders.
        how: how runs are computed.
        announce: called with each seed that has to be run.
    """
    summaries: list[dict[str, Any]] = []
    curves: dict[int, list[dict[str, Any]]] = {}
    for seed in seeds:
        own = folder / f"seed-{seed}"
        if announce is not None and not (own / SUMMARY).exists():
            announce(seed)
        if not (own / CONFIG).exists():
            prepare(load(seed), own, how.keys, elsewhere=bool(how.ray_address))
        if not (own / SUMMARY).exists():
            launch(own, how)
        summary, curves[seed] = read_finished(own)
        summaries.append(summary)
    combined = combine(summaries)
    from simulations.report import write_seeds_report  # plots: see simulations.how

    write_seeds_report(folder, combined, curves)
    write_json(folder / SEEDS, combined)
    return combined
