"""Three edge schemes on one scenario, one split and one stream that drifts: what each learns and what it costs.

`python -m benchmarks.edge_schemes OUT [--seeds 0,1,2] [--drift disturbance] [--set key=value]... [--json]`

* `fedstill`: federated distillation by way of a server
* `online`: each device's student learns the device's own stream from a teacher that the device carries
* `neighbours`: label caches are copied between the devices nearest to each other

All three run with the same devices, students, steps, proxy set and streams, from the same first view (the initial
teacher's). Nothing is released, so that only rounds are compared. Accuracy is that of the devices' own students: on the
clean test set after the last round, and prequential (on what a round brings, before anything is learned from it) before
the drift, in its first round and after that. Bytes are complete packets per device over the whole run. The cost of a
round is that of the last one, replayed in a fresh process for a device of each class with the first seed: seconds of
processor time, the best of three, peak memory and what of it the third added, and the size of the device's state.

Runs that OUT holds already are not repeated, and those of another configuration are refused; `edge_schemes.json` is
written there.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid
from rich import box
from rich.console import Console
from rich.table import Table

from client.app import app as client_app
from fedstill.errors import RunFolderError
from fedstill.files import write_atomic, write_json
from fedstill.loading import load_object
from fedstill.release.probe import peak_rss
from fedstill.rounds import DeviceAnswer
from fedstill.workers import prepare_torch
from server.app import app as server_app
from simulations.engines.local import run_local
from simulations.host import SimulatedHost, device_half
from simulations.job import federate, plan_of
from simulations.launch import prepare
from simulations.methods import load_method
from simulations.progress import RunProgress
from simulations.run_folder import CONFIG, ROUNDS, commit
from simulations.scenario import Scenario, dump, load_scenario
from simulations.setup import Setup, setup_from
from simulations.shelf import open_shelf

METHODS = ("fedstill", "online", "neighbours")
CHANGES = (
    "devices=8",
    "rounds=6",
    "partition.min_samples=24",
    "stream.window=3",
    "students.distil.epochs=1",  # of the server's own students, which are not compared
)
DONE, REQUESTS, RESULT = "done.json", "requests", "edge_schemes.json"
REPEATS = 3


class RecordingHost(SimulatedHost):
    """A simulated host that keeps each device's last request."""

    def __init__(self, setup: Setup, place: int, hosts: int) -> None:
        super().__init__(setup, place, hosts)
        self._folder = setup.out / REQUESTS

    def answer(self, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        """Return the devices' answers."""
        for number, request in requests.items():
            write_atomic(self._folder / str(number), request)
        return super().answer(requests)


def build(run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> RecordingHost:
    """Build the only host of a run."""
    return RecordingHost(setup_from(run_config, int(run_config["run-id"])), 0, 1)


def job(grid: Grid, context: Context) -> None:
    """Run the rounds of a method, and nothing else."""
    setup = setup_from(context.run_config, context.run_id)
    prepare_torch()
    with RunProgress(Console(file=sys.stderr)) as progress:
        shelf = open_shelf(setup.assets, setup.scenario)
        if setup.scenario.method.server:
            load_object(setup.scenario.method.server)(grid, setup, shelf, progress)
        else:
            federate(grid, setup, shelf, plan_of(setup), progress)


def run(scenario: Scenario, out: Path) -> list[dict[str, Any]]:
    """Run what is missing of a method with a seed, and return its rows.

    Raises:
        RunFolderError: what is there is of another configuration.
    """
    if not (out / CONFIG).exists():
        prepare(scenario, out, out.parent / "keys")
    held, wanted = (tomllib.loads(text) for text in ((out / CONFIG).read_text(), dump(scenario)))
    if other := [key for key in sorted({*held, *wanted}) if held.get(key) != wanted.get(key)]:
        raise RunFolderError(f"{out} is a run of another configuration ({', '.join(other)}): choose another OUT")
    if not (out / DONE).exists():
        config: dict[str, bool | float | int | str] = {
            "scenario": str(out / CONFIG),
            "out": str(out),
            "keys": str(out.parent / "keys"),
            "workers": 1,
            "job": "benchmarks.edge_schemes:job",
            "host": "benchmarks.edge_schemes:build",
        }
        run_local(server_app, client_app, 1, config)
        write_json(out / DONE, {"commit": commit()})
    return [json.loads(line) for line in (out / ROUNDS).read_text().splitlines()]


def figures(scenario: Scenario, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return what is compared of one run; accuracies are fractions, means over devices, and of rounds over rounds.

    Args:
        scenario: of the run.
        rows: of its rounds. Round 1 is left out of the prequential accuracy: nobody has learned anything then.
    """
    counts, last = scenario.class_counts(), scenario.stream.last_before(scenario.rounds)

    def mean(key: str, first: int, end: int) -> float | None:
        found = [
            (row[key][name], count)
            for row in rows[first - 1 : end]
            for name, count in counts.items()
            if row.get(key, {}).get(name) is not None
        ]
        return sum(value * count for value, count in found) / sum(count for _, count in found) if found else None

    return {
        "accuracy": mean("device_accuracy", scenario.rounds, scenario.rounds),
        "prequential_before": mean("prequential_accuracy", 2, last),
        "prequential_at": mean("prequential_accuracy", last + 1, last + 1),
        "prequential_after": mean("prequential_accuracy", last + 2, scenario.rounds),
        "uplink_bytes": rows[-1]["uplink_bytes"] / scenario.devices,
        "downlink_bytes": rows[-1]["downlink_bytes"] / scenario.devices,
        "refused": float(sum(len(row["refused"]) for row in rows)),
    }


def replay(out: Path) -> dict[str, dict[str, float]]:
    """Let the first device of each class answer the last round again, from its state before, and return what it cost.

    Peak memory is this process's: run it in a fresh one.
    """
    prepare_torch()
    scenario = load_scenario(str(out / CONFIG))
    classes, half = scenario.classes_of_devices(), device_half(scenario)
    found = {}
    for name in scenario.device_classes:
        number = classes.index(name)
        request, seconds = (out / REQUESTS / str(number)).read_bytes(), []
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "assets").symlink_to(out / "assets")
            setup = Setup(scenario, folder, workers=1, engine="local", keys=folder)
            own = folder / "devices" / f"device-{number:05d}"
            for _ in range(REPEATS):
                shutil.rmtree(own, ignore_errors=True)
                shutil.copytree(out / "devices" / own.name, own)
                newest = max(own.glob("round-*.state"))
                state = newest.stat().st_size
                newest.unlink()
                Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
                before, begin = peak_rss(), time.process_time()
                reply = half(setup, number, request)
                seconds.append(time.process_time() - begin)
                if not reply.packet:
                    raise RuntimeError(f"device {number} refuses its own last request: {reply.refusal}")
        found[name] = {
            "cpu_seconds": min(seconds),
            "added_rss_bytes": peak_rss() - before,
            "peak_rss_bytes": peak_rss(),
            "state_bytes": state,
        }
    return found


def costs(out: Path) -> dict[str, dict[str, float]]:
    """Return what a round costs the first device of each class, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.edge_schemes", str(out), "--replay"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def compared(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Return mean and sample deviation over seeds of each figure; null where a run lacks it."""
    result: dict[str, Any] = {}
    for key in runs[0]:
        known = [value for run in runs if (value := run[key]) is not None]
        whole = len(known) == len(runs)
        result[key] = {
            "mean": statistics.mean(known) if whole else None,
            "std": statistics.stdev(known) if whole and len(known) > 1 else None,
        }
    return result


def table_of(found: Mapping[str, Any]) -> Table:
    """Return the table of the methods."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"drift: {found['drift']}", title_justify="left")
    titles = (
        "method",
        "test %",
        "before %",
        "at drift %",
        "after %",
        "up kB",
        "down kB",
        "CPU s",
        "RSS MB",
        "state kB",
    )
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", no_wrap=True)

    def percent(own: Mapping[str, float | None]) -> str:
        mean, std = own["mean"], own["std"]
        return "—" if mean is None else f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std is not None else "")

    for name, own in found["methods"].items():
        spent = own["costs"].values()
        table.add_row(
            name,
            *(
                percent(own[f"{key}"])
                for key in ("accuracy", *(f"prequential_{at}" for at in ("before", "at", "after")))
            ),
            f"{own['uplink_bytes']['mean'] / 1e3:.1f}",
            f"{own['downlink_bytes']['mean'] / 1e3:.1f}",
            f"{statistics.mean(cost['cpu_seconds'] for cost in spent):.2f}",
            f"{max(cost['peak_rss_bytes'] for cost in spent) / 1e6:.0f}",
            f"{max(cost['state_bytes'] for cost in spent) / 1e3:.0f}",
        )
    return table


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenario", default="digits")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--drift", default="disturbance", choices=("none", "classes", "disturbance"))
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    out: Path = given.out.resolve()
    if given.replay:
        print(json.dumps(replay(out)))
        return
    seeds = [int(part) for part in given.seeds.split(",")]
    changes = [*CHANGES, f"stream.drift={given.drift}", *given.changes]
    runs: dict[str, list[dict[str, float | None]]] = {name: [] for name in METHODS}
    for seed in seeds:
        for name in METHODS:
            scenario = load_method(given.scenario, name, [*changes, f"seed={seed}"])
            try:
                rows = run(scenario, out / f"{name}-{seed}")
            except RunFolderError as error:
                parser.error(str(error))
            runs[name].append(figures(scenario, rows))
    methods = {name: {**compared(own), "costs": costs(out / f"{name}-{seeds[0]}")} for name, own in runs.items()}
    found = {
        "scenario": given.scenario,
        "changes": changes,
        "drift": given.drift,
        "seeds": seeds,
        "commit": commit(),
        "methods": methods,
        "runs": runs,
    }
    write_json(out / RESULT, found)
    if given.json:
        print(json.dumps(found))
    else:
        Console(width=140).print(table_of(found))


if __name__ == "__main__":
    main()
