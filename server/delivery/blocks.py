"""Files of the store in blocks, the last used ones kept in memory: a thousand devices read a release once."""

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor
from dataclasses import dataclass

from fedstill.errors import ReleaseError
from server.release.store import Store

BLOCK = 1 << 18  # bytes
KEPT = 512  # blocks: 128 MiB


@dataclass(frozen=True)
class File:
    """A file of the store.

    Attributes:
        name: its path there.
        length: its bytes.
    """

    name: str
    length: int


class Blocks:
    """Blocks of files that never change.

    Args:
        store: where they are.
        threads: read them.
        kept: how many stay in memory.
    """

    def __init__(self, store: Store, threads: Executor, kept: int = KEPT) -> None:
        self._store = store
        self._threads = threads
        self._kept = kept
        self._blocks: OrderedDict[tuple[str, int], asyncio.Future[bytes]] = OrderedDict()

    async def read(self, file: File, offset: int, most: int) -> bytes:
        """Return at most so many bytes of a file from `offset` on, up to the end of a block; at least one.

        Raises:
            ConfigError: the store can't be reached.
            ReleaseError: the file is shorter than it has to be.
        """
        number, start = divmod(offset, BLOCK)
        block = await self._block(file, number)
        return block[start : start + most]

    async def _block(self, file: File, number: int) -> bytes:
        key = (file.name, number)
        found = self._blocks.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            loop = asyncio.get_running_loop()
            found = self._blocks[key] = loop.run_in_executor(self._threads, self._load, file, number)
            while len(self._blocks) > self._kept:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        # One device that goes away must not take the block from the others that wait for it.
        return found.result() if found.done() else await asyncio.shield(found)

    def _load(self, file: File, number: int) -> bytes:
        start = number * BLOCK
        end = min(start + BLOCK, file.length)
        content = self._store.read_range(file.name, start, end)
        if len(content) != end - start:
            raise ReleaseError(f"{file.name}: shorter than the {file.length} bytes that were signed")
        return content
