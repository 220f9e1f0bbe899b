"""Worker processes with one thread each: the way to use many cores without changing a result.

A computation in a worker does the same arithmetic as in the calling process, so results don't depend on how many
workers there are. The start method is `forkserver` with torch, and what else is worth it, already imported: a worker
starts in milliseconds and shares these modules' pages with its siblings.
"""

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

from fedstill.memory import keep_freed_memory

R = TypeVar("R")

AHEAD = 4  # calls for each worker that are handed over at a time: with all of them, waiting would be quadratic

_pools: dict[int, ProcessPoolExecutor] = {}
_preloaded = ["torch", "fedstill.learning"]


def preload(module: str) -> None:
    """Let workers that start later have a module already, in pages that they share."""
    if module not in _preloaded:
        _preloaded.append(module)


def begin(workers: int, *modules: str) -> None:
    """Let the modules that workers share be imported while this process goes on; 1 worker is this process.

    Without this it begins with the first call, which waits for it.

    Args:
        workers: how many there will be.
        modules: what they will need beside.
    """
    if workers > 1:
        for module in modules:
            preload(module)
        _context()
        # A server that gets Ctrl-C while it imports would tell so; it ends with this process anyhow.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_torch() -> None:
    """Set this process up to compute: on one thread, and with memory that it keeps.

    Threads inside an operation change sums and collapse under load.
    """
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _begin_worker() -> None:
    """Set up a worker: one thread; Ctrl-C is the parent's business; no life after the parent's death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_torch()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _context() -> ForkServerContext:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_preloaded)
    return context


def _pool(workers: int) -> ProcessPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_begin_worker)
    return _pools[workers]


@atexit.register
def close() -> None:
    """End all worker processes; unfinished work is dropped."""
    for pool in _pools.values():
        pool.shutdown(wait=False, cancel_futures=True)
    _pools.clear()


def unordered(
    work: Callable[..., R],
    calls: Iterable[tuple[Any, ...]],
    workers: int,
    lost: Callable[..., R] | None = None,
) -> Iterator[tuple[int, R]]:
    """Yield the place and result of `work(*call)` for each call, as they finish.

    Args:
        work: a module-level function.
        calls: its arguments, taken a few ahead of the workers; everything must pickle.
        workers: processes; 1 computes here, in order.
        lost: returns the result of a call whose worker gets killed, say for its memory, also when nothing else is
            computed; called here with the call's arguments. None: a killed worker ends it all.

    Raises:
        BrokenProcessPool: a worker was killed, and there is no `lost`.
    """
    if workers <= 1:
        prepare_torch()
        for place, call in enumerate(calls):
            yield place, work(*call)
        return
    left = enumerate(calls)
    taken: dict[int, tuple[Any, ...]] = {}  # calls without a result
    waiting: dict[Future[R], int] = {}

    def submit(count: int) -> None:
        for place, call in islice(left, count):
            taken[place] = call
            waiting[_pool(workers).submit(work, *call)] = place

    try:
        while True:
            try:
                submit(AHEAD * workers)
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        place = waiting.pop(future)
                        del taken[place]
                        yield place, result
                    submit(len(done))
                return
            except BrokenProcessPool:
                _pools.pop(workers, None)  # the next call gets new workers
                if lost is None:
                    raise
            waiting.clear()
            for place, call in list(taken.items()):  # one of these did it: alone, it is found
                yield place, alone(work, call, workers, lost)
                del taken[place]
    finally:
        for future in waiting:
            future.cancel()


def alone(work: Callable[..., R], call: tuple[Any, ...], workers: int, lost: Callable[..., R]) -> R:
    """Return `work(*call)`, computed while nothing else is; the arguments are those of `unordered`."""
    try:
        return _pool(workers).submit(work, *call).result()
    except BrokenProcessPool:
        _pools.pop(workers, None)
        return lost(*call)


def ordered(work: Callable[..., R], calls: Iterable[tuple[Any, ...]], workers: int) -> list[R]:
    """Return `work(*call)` for each call, in the order of the calls."""
    results = dict(unordered(work, calls, workers))
    return [results[place] for place in sorted(results)]
