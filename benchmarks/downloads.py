"""Many devices at once: each downloads one file over a connection of its own, by gRPC or by HTTPS."""

import asyncio
import multiprocessing
import resource
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import grpc

from protos.delivery_pb2 import FetchRequest, NewestRequest
from protos.delivery_pb2_grpc import DeliveryStub

PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Target:
    """What is downloaded from where.

    Attributes:
        port: on this machine.
        authority: PEM file of who signed the server's certificate.
        file: what has to arrive.
        path: of the file for HTTPS; empty: the delivery service is asked.
    """

    port: int
    authority: Path
    file: Path
    path: str = ""


@dataclass(frozen=True)
class Downloads:
    """What became of the downloads.

    Attributes:
        seconds: from the first request until the last byte.
        each: seconds of each download that was right.
        failures: why each other one was not.
    """

    seconds: float
    each: list[float]
    failures: list[str]


def channel_to(target: Target, port: int = 0) -> grpc.aio.Channel:
    """Return a channel with a connection of its own, to the target or to another port that leads there."""
    credentials = grpc.ssl_channel_credentials(target.authority.read_bytes())
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.aio.secure_channel(f"localhost:{port or target.port}", credentials, options)


async def _over_grpc(target: Target, device: str, wanted: memoryview, go: Callable[[], Awaitable[None]]) -> float:
    async with channel_to(target) as channel:
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        await go()
        started, stub = time.perf_counter(), DeliveryStub(channel)
        newest = await stub.Newest(NewestRequest(device_class="pi5", device_id=device), timeout=PATIENCE)
        request = FetchRequest(device_class="pi5", version=newest.version, name=target.file.name)
        offset = 0
        async for chunk in stub.Fetch(request, timeout=PATIENCE):
            if chunk.offset != offset or wanted[offset : offset + len(chunk.data)] != chunk.data:
                raise ValueError(f"other bytes at {offset}")
            offset += len(chunk.data)
        if offset != len(wanted):
            raise ValueError(f"{offset} of {len(wanted)} bytes")
        return time.perf_counter() - started


async def _over_https(target: Target, device: str, wanted: memoryview, go: Callable[[], Awaitable[None]]) -> float:
    """Download with plain blocking sockets: what leaves most of the machine to the rival."""
    link = await asyncio.to_thread(_connected, target)
    await go()
    return await asyncio.to_thread(_get, link, target.path, wanted)


def _connected(target: Target) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(target.authority))
    return context.wrap_socket(
        socket.create_connection(("localhost", target.port), PATIENCE), server_hostname="localhost"
    )


def _get(link: ssl.SSLSocket, path: str, wanted: memoryview) -> float:
    started = time.perf_counter()
    with link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, separator, content = link.recv(1 << 14).partition(b"\r\n\r\n")
        if not separator or b" 200 " not in head.splitlines()[0]:
            raise ValueError(head.splitlines()[0].decode())
        offset, place = 0, memoryview(bytearray(1 << 16))
        place[: len(content)], count = content, len(content)
        while count or offset == 0:
            if wanted[offset : offset + count] != place[:count]:
                raise ValueError(f"other bytes at {offset}")
            offset += count
            count = link.recv_into(place)
    if offset != len(wanted):
        raise ValueError(f"{offset} of {len(wanted)} bytes")
    return time.perf_counter() - started


async def _devices(target: Target, first: int, count: int, barrier: Barrier) -> tuple[list[float], list[str]]:
    """Connect some devices, wait until those of all processes are connected, download with all of them."""
    wanted = memoryview(target.file.read_bytes())
    connected, start = 0, asyncio.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(count + 1))

    async def go() -> None:
        nonlocal connected
        connected += 1
        if connected == count:
            await asyncio.to_thread(barrier.wait, PATIENCE)
            start.set()
        await start.wait()

    download = _over_https if target.path else _over_grpc
    calls = [download(target, f"device-{first + number}", wanted, go) for number in range(count)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    good = [one for one in found if isinstance(one, float)]
    return good, [f"{type(one).__name__}: {one}" for one in found if isinstance(one, BaseException)]


def _process(target: Target, first: int, count: int, barrier: Barrier, results: Any) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results.put(asyncio.run(_devices(target, first, count, barrier)))


def download(target: Target, channels: int, processes: int) -> Downloads:
    """Download with so many devices at once, spread over so many processes; all are connected before any begins."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes + 1), context.SimpleQueue()
    shares = [range(channels)[place::processes] for place in range(processes)]
    firsts = [sum(map(len, shares[:place])) for place in range(processes)]
    work = [
        context.Process(target=partial(_process, target, first, len(share), barrier, results))
        for first, share in zip(firsts, shares, strict=True)
    ]
    for one in work:
        one.start()
    barrier.wait(PATIENCE)
    started = time.perf_counter()
    found = [results.get() for _ in work]
    seconds = time.perf_counter() - started
    for one in work:
        one.join()
    return Downloads(seconds, [one for good, _ in found for one in good], [one for _, bad in found for one in bad])
