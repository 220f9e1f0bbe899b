"""What a label cache costs in accuracy: the rounds of a scenario with labels that last D rounds beside D = 0.

The mnist scenario, cut to what one core does in minutes (a small teacher included), with independent draws of half of
the proxy set, so that D = 12 sends about as little as D = 50 does with draws of a tenth (see `label_traffic.py`).
References and releases are left out: accuracies are means over the last third of the rounds, as single rounds scatter.

`python -m benchmarks.label_cache --durations 0 12 --seeds 0 --data-dir DATA_DIR` prints a JSON line per run.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedstill.exchange import ServerExchange
from fedstill.flower import FederatedDistillation, answer, describe
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server.checkpoints import Checkpoints
from server.federation import Federation, Row
from simulations.engines.local import LocalGrid
from simulations.host import SimulatedHost
from simulations.job import plan_of
from simulations.run_folder import commit
from simulations.scenario import Scenario, load_scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf

CHANGES = (
    "devices=8",
    "data.private_samples=8000",
    "data.proxy_samples=1000",
    "teacher.architecture=strided-conv-l",
    "teacher.initial.epochs=20",
    "device.revisit.epochs=1",
    "students.distil.epochs=2",
    "exchange.per_round=500",
    "exchange.draw='independent'",
)


def rounds_of(
    scenario: Scenario, out: Path, seen: Callable[[Mapping[int, DeviceAnswer]], None] | None = None
) -> list[Row]:
    """Run a scenario's rounds in `out`, on one host in this process, and return their rows.

    Args:
        scenario: what to run.
        out: an empty folder, or one with the data already split in it.
        seen: called with each round's answers by device.
    """
    setup = Setup(scenario, out, workers=1, engine="local")
    shelf = open_shelf(setup.assets, scenario)
    host = SimulatedHost(setup, 0, 1)
    app = ClientApp()

    def answers(requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        found = host.answer(requests)
        if seen is not None:
            seen(found)
        return found

    @app.query("devices")
    def devices(message: Message, context: Context) -> Message:
        return describe(message, host.devices())

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        return answer(message, answers)

    wire = scenario.exchange
    shared = shelf.context(scenario.seed, load_task(scenario.task).classes)
    independent = wire.draw == "independent"
    exchange = ServerExchange(shared, wire.per_round, scenario.rounds, wire.downlink, wire.duration, independent)
    federation = Federation(plan_of(setup), shelf, exchange, Checkpoints(out / "checkpoints"), lambda rows: None)
    strategy = FederatedDistillation(exchange, federation.conclude)
    strategy.traffic = federation.traffic
    strategy.start(LocalGrid(app, 1, {}), num_rounds=scenario.rounds)
    return federation.knowledge.rows


def figures(scenario: Scenario, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a run's rounds cost and reached."""
    late = rows[-max(1, len(rows) // 3) :]
    device = [np.mean([score for score in row["device_accuracy"].values() if score is not None]) for row in late]
    return {
        "duration": scenario.exchange.duration,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "uplink_fraction": sum(row["asked"] for row in rows) / (scenario.rounds * scenario.exchange.per_round),
        "uplink_bytes": rows[-1]["uplink_bytes"],
        "downlink_bytes": rows[-1]["downlink_bytes"],
        "accuracy_students": float(np.mean([list(row["released_accuracy"].values()) for row in late])),
        "accuracy_devices": float(np.mean(device)),
        "accuracy_teacher": float(np.mean([row["teacher_accuracy"] for row in late])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every duration with every seed and print their figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.label_cache", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--durations", type=int, nargs="+", default=[0, 12])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--data-dir", default=os.environ.get("FEDSTILL_DATA_DIR", ""))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the scenario")
    options = parser.parse_args(arguments)
    prepare_torch()
    print(json.dumps({"commit": commit(), "changes": [*CHANGES, *options.set]}), flush=True)
    for seed in options.seeds:
        for duration in options.durations:
            own = [f"exchange.duration={duration}", f"seed={seed}", f"rounds={options.rounds}"]
            own.append(f"data.dir={json.dumps(options.data_dir)}")
            scenario = load_scenario("mnist", [*CHANGES, *options.set, *own])
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(figures(scenario, rounds_of(scenario, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
