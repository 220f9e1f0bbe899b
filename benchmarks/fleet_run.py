"""Our side of `python -m benchmarks.fleet`, in a process of its own: rounds of a fleet, a line after each.

`python -m benchmarks.fleet_run mlp OUT [--devices 200] [--rounds 3] [--set executor=cohort]`: the local engine, and
the same ClientApp, packets, label caches and device states on disk as `fedstill simulate`; the mean as consensus, no
teacher, class students or release, as the rival has none.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rivals.flower_ray import data
from fedstill.files import write_atomic
from fedstill.rounds import RoundReplies
from fedstill.tasks import Arrays, Task
from fedstill.workers import begin, default_workers
from simulations.run_folder import CONFIG
from simulations.scenario import Scenario, dump, load_scenario
from simulations.setup import hosts_of

if TYPE_CHECKING:  # workers import this module, and do without Flower
    from flwr.serverapp import ServerApp

STUDENTS = Path(data.__file__).resolve().with_name("work.py")
POOL = 12_000  # private images of all devices: more of them would measure the disk


def _load(folder: Path | None) -> Arrays:
    pixels, labels = data.images(POOL + 1000, seed=0)
    return Arrays(pixels, labels, pixels[:0], labels[:0])


TASK = Task("fleet", tuple(str(label) for label in range(data.CLASSES)), (1, data.SIDE, data.SIDE), _load)

SCENARIO = f"""
name = "fleet"
task = "benchmarks.fleet_run:TASK"
rounds = 1
devices = 200

[data]
proxy_samples = 1000

[partition]
rule = "iid"
min_samples = 60

[device_classes]
all = {{ student = "{STUDENTS}:mlp" }}

[device]
logit_adjustment = 0.0
send_class_prior = false
first_digest = {{ epochs = 0, learning_rate = 1.0 }}

[device.revisit]
epochs = 1
batch = {data.BATCH}
learning_rate = {data.RATE}
momentum = 0.0
weight_decay = 0.0
decay = "constant"
augment = "none"

[exchange]
per_round = 1000

[students]
distil = {{ epochs = 0, learning_rate = 1.0 }}

[central]
fit = {{ epochs = 0, learning_rate = 1.0 }}
"""


def scenario_of(folder: Path, student: str, devices: int, rounds: int, rows: int, changes: list[str]) -> Scenario:
    """Return the scenario: as many private images as 60 for each device, drawn with replacement beyond the pool."""
    path = folder / "scenario.toml"
    write_atomic(path, SCENARIO.encode())
    samples = 60 if devices * 60 <= POOL else 30  # draws are twice as many as asked for
    return load_scenario(
        str(path),
        [
            f"device_classes.all.student='{STUDENTS}:{student}'",
            f"devices={devices}",
            f"rounds={rounds}",
            f"data.proxy_samples={rows}",
            f"data.private_samples={min(POOL, 60 * devices)}",
            f"exchange.per_round={rows}",
            f"partition.min_samples={samples}",
            *changes,
        ],
    )


def server_of(scenario: Scenario, folder: Path) -> "ServerApp":
    """Return a ServerApp that runs the rounds with the mean as consensus."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    from fedstill.exchange import ServerExchange
    from fedstill.flower import FederatedDistillation, RoundPolicy
    from simulations.shelf import open_shelf

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        shelf = open_shelf(folder / "assets", scenario)
        wire = scenario.exchange
        exchange = ServerExchange(shelf.context(scenario.seed, data.CLASSES), wire.per_round, scenario.rounds)
        policy = RoundPolicy(scenario.devices, quorum=1.0)
        strategy = FederatedDistillation(exchange, policy=policy, scratch=folder)
        publish = strategy.conclude

        def conclude(replies: RoundReplies) -> Mapping[str, float]:
            found = publish(replies)
            print(f"round {replies.round_number}", flush=True)
            return found

        strategy.conclude = conclude
        strategy.start(grid, num_rounds=scenario.rounds)

    return app


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", choices=["cnn", "mlp"])
    parser.add_argument("out", type=Path)
    for name, default in (("devices", 200), ("rounds", 3), ("rows", 1000), ("workers", default_workers())):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    chosen = parser.parse_args()
    begin(chosen.workers, "simulations.host")
    from client.app import app as client_app
    from simulations.engines.local import run_local

    out = chosen.out.resolve()
    scenario = scenario_of(out, chosen.student, chosen.devices, chosen.rounds, chosen.rows, chosen.changes)
    write_atomic(out / CONFIG, dump(scenario).encode())
    config: dict[str, Any] = {"scenario": str(out / CONFIG), "out": str(out), "engine": "local"}
    config |= {"workers": chosen.workers, "host": "simulations.host:build"}
    run_local(server_of(scenario, out), client_app, hosts_of(chosen.devices), config)


if __name__ == "__main__":
    main()
