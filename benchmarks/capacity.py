"""What a fleet of so many devices costs one server: `python -m benchmarks.capacity [--devices 20 100] [--json]`.

A real server (SuperLink with TLS and authentication, enrolment, ServerApp) and so many nodes that enrolled with tokens
of their own. A node is a thread of one other process: it speaks Flower's fleet protocol with the SuperNode's own
client, asks for work every three seconds as a SuperNode does, and answers each round with random soft labels at once,
so that what is counted is the server's. First the fleet only stays connected; then a run goes by.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supernode.fleet_http_connection import http_request_response

from client.enrol import enrol
from client.home import Home
from client.learner import opened
from fedstill.cache import LabelCache
from fedstill.exchange import close_task
from fedstill.flower import answer, describe
from fedstill.packet import Context
from fedstill.plan import DevicePlan
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import soft_labels
from server.deployment.control import Control
from server.deployment.home import ServerHome
from simulations.run_folder import commit
from tests.deploy.deployment import SCENARIO, Deployment, eventually, fedstill, rows

PAUSE = 3.0
"""Seconds after which a SuperNode that had nothing to do asks again."""
IDLE = 60.0
"""Seconds for which the fleet only stays connected."""
CLASS = "pi5"
PARTS = ("superlink", "superexec", "enrolment")
CHANGES = (
    "data.proxy_samples=1000",
    "exchange.per_round=1000",
    f'device_classes={{{CLASS} = {{student = "tiny-conv-s"}}}}',
)


class Node:
    """One connected device, which knows nothing.

    Args:
        home: the device's folder.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._number = home.config().number
        self._cache: LabelCache | None = None

    def live(self, over: threading.Event) -> None:
        """Answer what comes until it is over."""
        key = load_ssh_private_key(self._home.key.read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        where = (self._home.config().superlink, False, str(self._home.authority), (key, key.public_key()))
        with http_request_response(*where) as (_, receive, send, get_run, _, pull, push, confirm):
            while not over.is_set():
                try:
                    received = receive()
                    if received is None:
                        over.wait(PAUSE)
                        continue
                    head, tree = received
                    run = head.metadata.run_id
                    message = pull_and_inflate_object_from_tree(
                        tree,
                        lambda name, run=run: pull(run, name),  # type: ignore[misc]
                        lambda name, run=run: confirm(run, name),  # type: ignore[misc]
                        return_type=Message,
                    )
                    message.metadata.__dict__["_message_id"] = tree.object_id
                    reply = self._reply(message, str(get_run(run).override_config.get("plan", "")))
                    reply.metadata.__dict__["_message_id"] = reply.object_id
                    with no_object_id_recompute():
                        wanted, session = send(remove_content_from_message(reply), get_object_tree(reply), 0.0)
                        push_objects(
                            get_all_nested_objects(reply),
                            lambda name, content, run=run, session=session: push(run, session, name, content),  # type: ignore[misc]
                            object_ids_to_push=wanted,
                        )
                except Exception:
                    traceback.print_exc()
                    over.wait(PAUSE)

    def _reply(self, message: Message, plan: str) -> Message:
        if message.metadata.message_type.startswith("query"):
            self._cache = None
            return describe(message, {self._number: CLASS})
        known = DevicePlan.read(plan)
        context = Context(known.seed, bytes.fromhex(known.proxy_digest), known.proxy_size, len(known.task.label_names))
        return answer(message, lambda requests: {self._number: self._said(context, known, requests[self._number])})

    def _said(self, context: Context, plan: DevicePlan, request: bytes) -> DeviceAnswer:
        task = opened(context, self._cache, request)
        if isinstance(task, DeviceAnswer):
            return task
        self._cache = task.cache
        rng = np.random.default_rng([self._number, task.round_number])
        probabilities = rng.dirichlet(np.ones(context.classes), len(task.predict)).astype(np.float32)
        prior = np.full(context.classes, 1 / context.classes, dtype=np.float32)
        certainty = np.ones(len(task.predict), dtype=np.float32)
        labels = soft_labels(task.predict, probabilities, certainty=certainty, class_prior=prior)
        return DeviceAnswer(close_task(context, task, labels, plan.classes[CLASS].uplink), {"accuracy": 0.0})


def fleet(folder: Path) -> None:
    """Be all devices whose folders lie in `folder`, until the standard input ends."""
    over = threading.Event()
    threads = [
        threading.Thread(target=Node(Home(home)).live, args=(over,), daemon=True) for home in folder.glob("d[0-9]*")
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()


class Processes:
    """The server's processes: what they have computed and what they hold."""

    def __init__(self, home: Path, supervisor: int) -> None:
        self._supervisor = psutil.Process(supervisor)
        self._parts = {name: int((home / "run" / f"{name}.pid").read_text()) for name in PARTS}

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds so far of each, the ServerApp among them where one runs."""
        found: dict[str, float] = {}
        for process in self._supervisor.children(recursive=True):
            try:
                name = next((name for name, pid in self._parts.items() if pid == process.pid), "ServerApp")
                times = process.cpu_times()
                found[name] = found.get(name, 0.0) + times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return found

    def held(self) -> int:
        """Return the bytes that the SuperLink holds (PSS)."""
        return int(psutil.Process(self._parts["superlink"]).memory_full_info().pss)


def _more(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds - before.get(name, 0.0), 2) for name, seconds in after.items()}


def measured(folder: Path, devices: int, rounds: int) -> dict[str, Any]:
    """Return what a fleet of so many devices costs."""
    deployment = Deployment(folder, devices, SCENARIO)
    deployment.serve()
    home = ServerHome(deployment.server)
    try:
        started = time.monotonic()

        def enrolled(number: int) -> None:
            token = fedstill("server", "token", "--class", CLASS, "--home", str(deployment.server)).strip()
            enrol(Home(folder / f"d{number}"), token)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enrolled, range(devices)))
        enrolment = time.monotonic() - started
        words = [sys.executable, "-m", "benchmarks.capacity", "--fleet", str(folder)]
        with (
            (folder / "fleet.out").open("wb") as said,
            subprocess.Popen(words, stdin=subprocess.PIPE, stderr=said) as nodes,
        ):
            processes = Processes(deployment.server, deployment.pid("server"))
            eventually(lambda: list(Control(home).nodes().values()).count("online") == devices, "all nodes")
            before = processes.seconds()
            time.sleep(IDLE)
            idle = _more(processes.seconds(), before)
            out = folder / "r" / "run"
            out.parent.mkdir()
            sets = [word for change in (f"rounds={rounds}", *CHANGES) for word in ("--set", change)]
            run = ["server", "run", str(deployment.file), "--home", str(deployment.server), "--out", str(out), *sets]
            deployment.start("run-r", *run)
            eventually(lambda: len(rows(out)) >= 1, "the first round")
            before, started = processes.seconds(), time.monotonic()
            eventually(lambda: len(rows(out)) >= rounds - 1, "the rounds")  # the last one also makes the release
            worked, passed = _more(processes.seconds(), before), time.monotonic() - started
            peak = processes.held()
            answers = [row["answers"] for row in rows(out)]
            if deployment.ended(out):
                raise RuntimeError(deployment.said("run-r"))
            assert nodes.stdin is not None
            nodes.stdin.close()
    finally:
        deployment.down()
    counted = rounds - 2
    return {
        "devices": devices,
        "answers": answers,
        "enrolment_seconds": round(enrolment, 1),
        "idle_cpu_seconds": idle,
        "idle_share_of_a_core": round(sum(idle.values()) / IDLE, 3),
        "round_cpu_seconds": {name: round(seconds / counted, 2) for name, seconds in worked.items()},
        "round_seconds": round(passed / counted, 2),
        "superlink_bytes": peak,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--fleet", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.fleet is not None:
        fleet(chosen.fleet)
        return
    found = []
    for devices in chosen.devices:
        with tempfile.TemporaryDirectory(prefix="fs") as folder:
            found.append(measured(Path(folder), devices, chosen.rounds))
    if chosen.json:
        print(json.dumps({"commit": commit(), "rounds": chosen.rounds, "fleets": found}, indent=2))
        return
    for fleet_ in found:
        print(f"{fleet_['devices']} devices: {fleet_['idle_share_of_a_core']:.1%} of a core while connected")
        parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in fleet_["round_cpu_seconds"].items())
        print(f"  a round: {fleet_['round_seconds']:.1f} s, of the processor {parts}")
        print(f"  SuperLink: {fleet_['superlink_bytes'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
