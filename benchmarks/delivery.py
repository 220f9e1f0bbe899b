"""How fast one delivery service serves many devices at once, beside nginx, and what an interruption costs.

`python -m benchmarks.delivery [--channels 1000] [--processes 4] [--megabytes 5] [--cuts 20] [--json]`

One server process and its devices share this machine, so the clients' own work is part of every wall time; CPU seconds
are the server's alone. The rival, nginx (Debian: nginx-light; left out where there is none), serves the same file from
the same folder over TLS 1.3 with a worker per CPU. All devices are connected before any begins.

The cost of an interruption is measured between device and server: a relay with the speed of a slow link cuts the
connection after a random number of bytes, the device goes on where it stopped, and what crossed the relay beyond an
undisturbed download is counted.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.downloads import PATIENCE, Downloads, Target, channel_to, download
from benchmarks.releases import certificate, published
from protos.delivery_pb2 import FetchRequest
from protos.delivery_pb2_grpc import DeliveryStub
from server.delivery.service import CHUNK
from simulations.run_folder import commit

LINK = 2.5e6  # bytes per second of the interrupted device: 20 Mbit/s
NGINX = """
daemon off; user root; worker_processes {cores}; worker_rlimit_nofile 16384; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; root {store}; keepalive_timeout 600s; client_header_timeout 600s;
    ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
  }}
}}
"""


@contextlib.contextmanager
def service(folder: Path, cert: Path, key: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Run `fedstill server deliver` on a store, and yield its process and port."""
    command = [sys.executable, "-m", "fedstill.cli", "server", "deliver", str(folder / "store")]
    options = ["--address", "127.0.0.1:0", "--cert", str(cert), "--key", str(key), "--state", str(folder / "state")]
    with (folder / "service.log").open("w+") as log, subprocess.Popen([*command, *options], stderr=log) as process:
        try:
            yield psutil.Process(process.pid), _port(folder / "service.log", process)
        finally:
            process.terminate()


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry["message"] == "serving":
                return int(entry["port"])
        time.sleep(0.1)
    raise RuntimeError(f"the service ended: {log.read_text()}")


@contextlib.contextmanager
def nginx(folder: Path, cert: Path, key: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Run nginx on the same store, and yield its process and port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = folder / "nginx.conf"
    places = {"folder": folder, "store": folder / "store", "cert": cert, "key": key}
    config.write_text(NGINX.format(port=port, cores=len(os.sched_getaffinity(0)), **places))
    with subprocess.Popen(["nginx", "-c", str(config), "-p", str(folder)]) as process:
        try:
            while process.poll() is None and socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
            yield psutil.Process(process.pid), port
        finally:
            process.terminate()


def measured(server: psutil.Process, target: Target, channels: int, processes: int) -> dict[str, Any]:
    """Download once, and return what it took."""
    before = _cpu(server)
    found: Downloads = download(target, channels, processes)
    size = target.file.stat().st_size
    each = sorted(found.each) or [float("nan")]
    return {
        "right": len(found.each),
        "failures": found.failures[:5],
        "seconds": found.seconds,
        "megabytes_per_second": len(found.each) * size / 1e6 / found.seconds,
        "server_cpu_seconds": _cpu(server) - before,
        "server_peak_megabytes": sum(_peak(one) for one in _family(server)) / 1e6,
        "slowest_device_seconds": each[-1],
        "median_device_seconds": each[len(each) // 2],
    }


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _peak(process: psutil.Process) -> int:
    """Return the largest resident memory of a process so far, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _cpu(process: psutil.Process) -> float:
    return float(sum(sum(one.cpu_times()[:2]) for one in _family(process)))


async def interrupted(target: Target, cuts: int) -> dict[str, Any]:
    """Return the bytes that each interruption cost: what had crossed the link and was of no use, session and all."""
    content, rng = target.file.read_bytes(), random.Random(0)
    (undisturbed,) = await _relayed(target, content, [])
    places = [rng.randrange(len(content) // (2 * cuts), len(content) // cuts) for _ in range(cuts)]
    *costs, _ = await _relayed(target, content, places)
    return {
        "cuts": len(costs),
        "chunk": CHUNK,
        "session_bytes": undisturbed,
        "mean_bytes": sum(costs) / max(1, len(costs)),
        "most_bytes": max(costs, default=0),
    }


async def _relayed(target: Target, content: bytes, places: list[int]) -> list[int]:
    """Download through a relay that cuts its first connections after so many bytes.

    Returns:
        Of each connection, the bytes that crossed the relay to the device and were no part of the file that it kept.
    """
    offset, left, passed, relays = 0, list(places), 0, []

    async def relay(device: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        nonlocal passed
        task = asyncio.current_task()
        assert task is not None
        relays.append(task)
        limit, passed = left.pop() if left else None, 0
        served, forth = await asyncio.open_connection("localhost", target.port)

        async def up() -> None:
            while data := await device.read(1 << 14):
                forth.write(data)
            forth.close()

        going = asyncio.create_task(up())
        with contextlib.suppress(OSError):
            while (limit is None or passed < limit) and (data := await served.read(1 << 14)):
                data = data if limit is None else data[: limit - passed]
                passed += len(data)
                back.write(data)
                await back.drain()
                await asyncio.sleep(len(data) / LINK)
        going.cancel()
        back.close()  # what was passed on still arrives
        forth.transport.abort()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    costs = []
    async with server:
        while offset < len(content):
            before = offset
            async with channel_to(target, port) as channel:
                request = FetchRequest(device_class="pi5", version=1, name=target.file.name, offset=offset)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async for chunk in DeliveryStub(channel).Fetch(request, timeout=PATIENCE):
                        if content[offset : offset + len(chunk.data)] != chunk.data:
                            raise ValueError(f"other bytes at {offset}")
                        offset += len(chunk.data)
                costs.append(passed - (offset - before))
        await asyncio.gather(*relays)
    return costs


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("channels", 1000), ("processes", 4), ("cuts", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = published(folder, round(options.megabytes * 1e6))
        authority, cert, key = certificate(folder)
        load = (options.channels, options.processes)
        with service(folder, cert, key) as (server, port):
            target = Target(port, authority, file)
            rows["fedstill"] = measured(server, target, *load)
            cost = asyncio.run(interrupted(target, options.cuts))
        if shutil.which("nginx"):
            with nginx(folder, cert, key) as (server, port):
                path = "/" + str(file.relative_to(folder / "store"))
                rows["nginx"] = measured(server, Target(port, authority, file, path), *load)
    facts = {"commit": commit(), "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs"}
    if options.json:
        print(json.dumps({**facts, **vars(options), "downloads": rows, "interruption": cost}, indent=1))
        return
    print(f"{options.channels} devices from {options.processes} processes, {options.megabytes:g} MB each; {facts}\n")
    titles = list(rows["fedstill"])
    print("| | " + " | ".join(title.replace("_", " ") for title in titles) + " |")
    print("| --- |" + " --- |" * len(titles))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(_shown(row[title]) for title in titles) + " |")
    print(f"\n{cost['cuts']} interruptions cost {cost['mean_bytes']:,.0f} bytes each, {cost['most_bytes']:,} at most;")
    print(f"of it {cost['session_bytes']:,} are those of any session (TLS, frames); a chunk has {cost['chunk']:,}")


def _shown(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
