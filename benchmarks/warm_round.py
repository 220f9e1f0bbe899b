"""What a round costs a device whose agent is warm, beside what an empty ClientApp costs in the same deployment.

`python -m benchmarks.warm_round [--rounds 12] [--json]`

A real server and one real device, as processes of this machine. First an app whose ClientApp answers with nothing gets
messages; then a run of as many rounds of the tests' smallest scenario goes by (60 soft labels a round, some 25 steps on
private samples). What is measured is the life of each ClientApp's process, from its start to its end, seen from
outside every few milliseconds: the message, the agent's work. The first round of each, in which nothing is warm, is
left out.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from server.deployment.control import Control
from server.deployment.home import ServerHome
from simulations.run_folder import commit
from tests.deploy.deployment import SCENARIO, Deployment, eventually, rows

EVERY = 0.005
OTHER = 'zero2w = { student = "tiny-separable-s" }\n'
EMPTY = """
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)


@server.main()
def main(grid, context):
    (node,) = grid.get_node_ids()
    for number in range(int(context.run_config["rounds"])):
        message = Message(RecordDict(), node, "train", ttl=600, group_id=str(number + 1))
        (reply,) = grid.send_and_receive([message], timeout=600)
    Path(context.run_config["out"]).touch()
"""


class Lives:
    """The lives of a device's ClientApp processes, in seconds."""

    def __init__(self, supervisor: int) -> None:
        self._supervisor = psutil.Process(supervisor)
        self._seen: dict[psutil.Process, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Lives":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> list[float]:
        """Of each process, in the order of their starts."""
        return [end - process.create_time() for process, end in self._seen.items()]

    def _watch(self) -> None:
        known: dict[psutil.Process, bool] = {}
        while not self._over.wait(EVERY):
            with suppress(psutil.Error):
                for process in self._supervisor.children(recursive=True):
                    if process not in known:
                        parent = psutil.Process(process.ppid())
                        # A fork of the process that the supervisor started; no fork of a fork.
                        known[process] = (
                            "client.apps" in " ".join(parent.cmdline()) and parent.ppid() == self._supervisor.pid
                        )
                    if known[process] and process.status() != psutil.STATUS_ZOMBIE:  # its parent reaps once a second
                        self._seen[process] = time.time()


def bundle(folder: Path) -> Path:
    """Write the app that does nothing."""
    folder.mkdir()
    (folder / "empty.py").write_text(EMPTY)
    app = {
        "publisher": "fedstill",
        "components": {"serverapp": "empty:server", "clientapp": "empty:client"},
        "config": {"rounds": "0", "out": ""},
    }
    project = {"name": "empty", "version": "1.0.0", "description": "Does nothing."}
    (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}}))
    return folder


def measured(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Return the lives of the empty ClientApps and those of a run's, first rounds left out."""
    deployment = Deployment(folder, devices=1, scenario=SCENARIO.replace(OTHER, ""))
    try:
        deployment.up()
        eventually(deployment.whole, "the device")
        device = int((deployment.device(0) / "run" / "client.lock").read_text())
        with Lives(device) as empty:
            done = folder / "done"
            Control(ServerHome(deployment.server)).start(
                bundle(folder / "bundle"), {"rounds": str(rounds), "out": str(done)}
            )
            eventually(done.exists, "the empty rounds")
        out = folder / "r" / "run"
        out.parent.mkdir()
        with Lives(device) as run:
            deployment.begin(out, f"rounds={rounds}")
            if deployment.ended(out):
                raise RuntimeError(deployment.said("run-r"))
        assert [row["answers"] for row in rows(out)] == [1] * rounds
    finally:
        deployment.down()
    return empty.seconds[1:], run.seconds[-rounds + 1 :]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fs") as folder:
        empty, run = measured(Path(folder), chosen.rounds)
    found: dict[str, Any] = {
        "commit": commit(),
        "rounds": chosen.rounds,
        "empty_seconds": {"median": statistics.median(empty), "all": empty},
        "round_seconds": {"median": statistics.median(run), "all": run},
        "more_seconds": statistics.median(run) - statistics.median(empty),
    }
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"empty ClientApp  {found['empty_seconds']['median']:.2f} s (median of {len(empty)})")
    print(f"warm round       {found['round_seconds']['median']:.2f} s (median of {len(run)})")
    print(f"more             {found['more_seconds']:+.2f} s")


if __name__ == "__main__":
    main()
