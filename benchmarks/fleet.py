"""Virtual devices on one machine, beside Flower's own simulation: `python -m benchmarks.fleet [--json]`.

Each side runs in a process tree of its own, one after the other, with the same work (`rivals/flower_ray/work.py`). The
ratios, ours over Flower's:

* devices_per_core_second: devices over the processor time of the whole tree, over all rounds but the first
* peak_memory: the maximum over time of the tree's PSS
* first_round: wall time from the start of the process to the end of the first round

Both sides use all cores, as they come. With `--workers` our side computes with so many processes, one of them the
server's own when it is one; `as_many_workers` has the same ratios over Flower with as many actors.

`gpu`, where torch finds one: both students with the cohort executor on the GPU, beside Flower's actors, which share the
same one; devices per second of wall time, over all rounds but the first.

`scale`: time per device of one round of many devices over that of a tenth. `server_round`: seconds of a round's work on
the server beside learning: encode, decode, consensus, checkpoint; and the processor's. Wall times want a quiet machine;
processor times hardly do.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from fedstill.consensus import RULES, Votes
from fedstill.exchange import ServerExchange
from fedstill.packet import Context, encode
from fedstill.soft_labels import soft_labels
from fedstill.stored import store_cache
from fedstill.workers import default_workers
from server.checkpoints import Checkpoints
from simulations.run_folder import commit

RIVAL = "benchmarks.rivals.flower_ray.run"
ROOT = Path(__file__).parents[1]
OURS = ("executor=process",)
ON_GPU = ("executor=cohort", "cohort.device=cuda")
STUDENTS = ("mlp", "cnn")
PARTS = (*STUDENTS, "gpu", "scale", "server_round")
RATIOS = ("devices_per_core_second", "peak_memory", "first_round")


@dataclass(frozen=True)
class Measured:
    """One side's run.

    Attributes:
        wall: seconds from the start to the end of each round.
        cpu: processor seconds of the whole process tree until then.
        peak: bytes.
    """

    wall: list[float]
    cpu: list[float]
    peak: int

    def figures(self, devices: int) -> dict[str, float]:
        """Return what the ratios are of."""
        spent = (self.cpu[-1] - self.cpu[0]) / (len(self.cpu) - 1)
        return {
            "devices_per_core_second": devices / spent,
            "peak_memory": float(self.peak),
            "first_round": self.wall[0],
        }


class Tree:
    """Watches a process and its descendants: processor time, also of those that ended, and memory."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self.peak = 0

    def sample(self) -> float:
        """Return the processor seconds so far."""
        with self._lock:
            memory = 0
            for process in (self._root, *self._root.children(recursive=True)):
                try:
                    times = process.cpu_times()
                    self._cpu[process.pid, process.create_time()] = times.user + times.system
                    memory += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, memory)
            return sum(self._cpu.values())


def measured(command: list[str]) -> Measured:
    """Run one side and watch it.

    Raises:
        RuntimeError: it failed or ended before a round did.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    wall: list[float] = []
    cpu: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        tree = Tree(process.pid)
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                tree.sample()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round "):
                wall.append(time.monotonic() - started)
                cpu.append(tree.sample())
        done.set()
        watcher.join()
    if process.returncode or not wall:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} after {len(wall)} rounds")
    return Measured(wall, cpu, tree.peak)


@dataclass(frozen=True)
class Ours:
    """Our configuration.

    Attributes:
        workers: processes that compute devices.
        changes: of the scenario.
    """

    workers: int
    changes: list[str]


def ours(student: str, devices: int, rounds: int, rows: int, how: Ours) -> Measured:
    """Run our side in a folder that is dropped."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.fleet_run", student, folder, f"--workers={how.workers}"]
        command += [f"--devices={devices}", f"--rounds={rounds}", f"--rows={rows}"]
        return measured([*command, *(f"--set={change}" for change in how.changes)])


def flower(
    student: str, devices: int, rounds: int, rows: int, workers: int | None = None, *, gpu: bool = False
) -> Measured:
    """Run the rival's side, with so many actors; None: one for each core. With `gpu` they share one."""
    options = [f"--devices={devices}", f"--rounds={rounds}", f"--rows={rows}"]
    options += [] if workers is None else [f"--workers={workers}"]
    options += ["--gpu"] if gpu else []
    return measured([sys.executable, "-m", RIVAL, student, *options])


def beside(student: str, devices: int, rounds: int, rows: int, how: Ours) -> dict[str, Any]:
    """Return the ratios of one student, and both sides' figures."""
    own = ours(student, devices, rounds, rows, how).figures(devices)
    other = flower(student, devices, rounds, rows).figures(devices)
    as_many = flower(student, devices, rounds, rows, how.workers).figures(devices)
    ratios = {key: own[key] / other[key] for key in RATIOS}
    alike = {key: own[key] / as_many[key] for key in RATIOS}
    return {**ratios, "ours": own, "flower": other, "as_many_workers": {**alike, "flower": as_many}}


def on_gpu(student: str, devices: int, rounds: int, rows: int) -> dict[str, float]:
    """Return devices per second of wall time on a GPU, ours and Flower's, and their ratio."""
    own = ours(student, devices, rounds, rows, Ours(1, list(ON_GPU))).wall
    other = flower(student, devices, rounds, rows, gpu=True).wall
    rates = [devices * (len(wall) - 1) / (wall[-1] - wall[0]) for wall in (own, other)]
    return {"devices_per_second": rates[0] / rates[1], "ours": rates[0], "flower": rates[1]}


def scale(many: int, rows: int, how: Ours) -> dict[str, float]:
    """Return the time per device of a round of many devices over that of a round of a tenth of them.

    The round is the second, so that no part of it is the start, which few devices would have to bear.
    """
    few = ours("mlp", many // 10, 2, rows, how)
    lot = ours("mlp", many, 2, rows, how)
    return {
        "devices": many,
        "cpu_per_device": (lot.cpu[1] - lot.cpu[0]) / many / ((few.cpu[1] - few.cpu[0]) / (many // 10)),
        "wall_per_device": (lot.wall[1] - lot.wall[0]) / many / ((few.wall[1] - few.wall[0]) / (many // 10)),
        "peak_memory": float(lot.peak),
        "peak_memory_of_a_tenth": float(few.peak),
    }


def server_round(devices: int, rows: int, classes: int = 10) -> dict[str, float]:
    """Return the seconds of each part of a round on the server, for devices whose answers are there."""
    context = Context(0, b"12345678", rows, classes)
    exchange = ServerExchange(context, rows, rounds=3, encoding="float16")
    rng = np.random.default_rng(0)
    teacher = rng.dirichlet(np.full(classes, 0.3), rows).astype(np.float32)
    exchange.publish(0, np.arange(rows), teacher)
    ids = exchange.ids(1)
    answers = []
    for _ in range(devices):
        labels = soft_labels(ids, rng.dirichlet(np.full(classes, 0.3), rows).astype(np.float32))
        packet = encode(
            context, labels, round_number=1, samples_round=1, encoding="float16", base_version=0, cache_version=1
        )
        answers.append(packet.SerializeToString(deterministic=True))
    marks = [time.perf_counter()]
    started = time.process_time()
    for device in range(devices):
        exchange.request(device, 1)
    marks.append(time.perf_counter())
    votes = {device: exchange.accept(device, 1, answer) for device, answer in enumerate(answers)}
    marks.append(time.perf_counter())
    stacked = Votes.stack(ids, votes, teacher[ids], rng.random(rows) < 0.2)
    consensus = RULES["reputable-experts"](stacked)
    exchange.publish(1, ids, consensus.labels)
    marks.append(time.perf_counter())
    assert consensus.reputation is not None
    reputation = dict(enumerate(map(torch.from_numpy, consensus.reputation)))
    with tempfile.TemporaryDirectory() as folder:
        state = {"reputation": reputation, **store_cache(exchange.cache), "acknowledged": dict(exchange.acknowledged)}
        Checkpoints(Path(folder)).save(1, state)
    marks.append(time.perf_counter())
    spent = time.process_time() - started
    names = ("encode", "decode", "consensus", "checkpoint")
    parts = dict(zip(names, np.diff(marks).tolist(), strict=True))
    return {**parts, "seconds": marks[-1] - marks[0], "processor_seconds": spent}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("devices", 200), ("rounds", 4), ("rows", 1000), ("many", 10_000), ("server-devices", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--set", action="append", dest="changes", help=f"our configuration [default: {', '.join(OURS)}]"
    )
    parser.add_argument(
        "--workers", type=int, default=default_workers(), help="processes that compute our devices [default: the cores]"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="[default: all; gpu where there is one]")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if "gpu" in (chosen.only or []) and not torch.cuda.is_available():
        parser.error("--only gpu: torch finds no GPU here")
    if chosen.rounds < 2:
        parser.error("--rounds: 2 at least, as the first one counts for little")
    how = Ours(chosen.workers, chosen.changes if chosen.changes is not None else list(OURS))
    named = [*how.changes, f"workers={how.workers}"]
    wanted = chosen.only or [part for part in PARTS if part != "gpu" or torch.cuda.is_available()]
    found: dict[str, Any] = {"commit": commit(), "configuration": named, "cores": os.cpu_count()}
    found["machine"] = platform.machine()
    for student in STUDENTS:
        if student in wanted:
            found[student] = beside(student, chosen.devices, chosen.rounds, chosen.rows, how)
    if "gpu" in wanted:
        found["gpu_configuration"] = [*ON_GPU, "workers=1"]
        found["gpu"] = {student: on_gpu(student, chosen.devices, chosen.rounds, chosen.rows) for student in STUDENTS}
    if "scale" in wanted:
        found["scale"] = scale(chosen.many, chosen.rows, how)
    if "server_round" in wanted:
        found["server_round"] = server_round(chosen.server_devices, chosen.rows)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    print(f"commit {found['commit']}, {' '.join(named)}; {found['machine']}, {found['cores']} cores")
    parts = {part: found[part] for part in wanted if part != "gpu"}
    parts |= {f"gpu, {student}": figures for student, figures in found.get("gpu", {}).items()}
    for part, values in parts.items():
        figures = {key: value for key, value in values.items() if not isinstance(value, dict)}
        print(f"{part}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
