"""A run on a Ray cluster that was there before: two nodes on this machine, started as a user starts them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.deployment import free_ports

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
PATIENCE = 600
"""Seconds for anything to happen; a machine may be busy."""
RAY = str(Path(sys.executable).parent / "ray")
SMALL_NODE = ["--num-cpus=1", "--object-store-memory=80000000", "--block"]


def node(stack: ExitStack, folder: Path, log: str, *options: str) -> None:
    """Start a node that ends with the stack, and all its processes with it."""
    output = stack.enter_context((folder / log).open("w"))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [RAY, "start", *options, *SMALL_NODE]
    process = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    own = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in own:
        if child.is_running():
            child.kill()


@pytest.fixture
def cluster() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets' paths must be short
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = address.rpartition(":")[2]
        node(
            stack,
            folder,
            "head.log",
            "--head",
            f"--port={port}",
            "--node-ip-address=127.0.0.1",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        )
        await_nodes(address, 1, folder)
        node(stack, folder, "worker.log", f"--address={address}", "--node-ip-address=127.0.0.1")
        await_nodes(address, 2, folder)
        yield address


def await_nodes(address: str, wanted: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        listed = subprocess.run([RAY, "status", f"--address={address}"], capture_output=True, text=True, check=False)
        if listed.stdout.count(" node_") >= wanted:
            return
        logs = "".join(path.read_text() for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{listed.stdout}{listed.stderr}{logs}"
        time.sleep(2)


def simulate(out: Path, *options: str) -> dict[str, Any]:
    """Run a small simulation and return what no engine may change."""
    command = [sys.executable, "-m", "fedstill.cli", "simulate", "digits", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    for key in ("timing", "peak_rss_bytes", "engine", "commit"):
        del summary[key]
    for key in ("messages", "envelope_bytes"):
        del summary["wire"][key]
    for facts in summary["device_classes"].values():
        del facts["latency_ms_p50"], facts["latency_fp32_ms_p50"]
    students = {path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "students").rglob("*.onnx")}
    return {"summary": summary, "rounds": (out / "rounds.jsonl").read_text(), "students": students}


def test_a_cluster_of_two_nodes_gives_the_local_engines_result(
    cluster: str, small_options: list[str], tmp_path: Path
) -> None:
    alone = simulate(tmp_path / "local", *small_options)
    assert simulate(tmp_path / "ray", *small_options, "--engine", "ray", "--ray-address", cluster) == alone
    await_nodes(cluster, 2, Path("/nowhere"))  # the run left the cluster as it was
