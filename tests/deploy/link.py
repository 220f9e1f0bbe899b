"""A bad link: a small TCP proxy that delays what passes, cuts connections, or holds everything back until it is healed.

    python -m tests.deploy.link LISTEN_PORT HOST PORT MOOD [ADDRESS]

MOOD is a file that holds what the link is like, one word and a delay in seconds, and may change at any time:
`open 0.1`, `cut 0` (connections end, new ones too), `hole 0` (nothing passes and nobody is told, like a partition of
the network).
"""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path

CHUNK = 16 * 1024
LOOK = 0.05  # seconds between two looks at the mood


class Link:
    """Forwards connections to an address, in the mood that a file tells."""

    def __init__(self, host: str, port: int, mood: Path) -> None:
        self._host = host
        self._port = port
        self._mood = mood

    def mood(self) -> tuple[str, float]:
        word, delay = self._mood.read_text().split()
        return word, float(delay)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        with suppress(OSError):
            back, there = await asyncio.open_connection(self._host, self._port)
            ways = [asyncio.create_task(self._way(reader, there)), asyncio.create_task(self._way(back, writer))]
            ways.append(asyncio.create_task(self._until_cut()))
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        for end in (writer, there):
            if end is not None:
                end.transport.abort()

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one direction; a delay holds up what follows too, so it bounds the speed to a chunk per delay."""
        while content := await reader.read(CHUNK):
            due = time.monotonic() + self.mood()[1]
            while self.mood()[0] == "hole" or time.monotonic() < due:
                await asyncio.sleep(LOOK)
            writer.write(content)
            await writer.drain()

    async def _until_cut(self) -> None:
        while self.mood()[0] != "cut":
            await asyncio.sleep(LOOK)


async def serve(port: int, host: str, target: int, mood: Path, address: str) -> None:
    link = Link(host, target, mood)
    server = await asyncio.start_server(link.connected, address, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    own, to, its, said, *at = sys.argv[1:]
    asyncio.run(serve(int(own), to, int(its), Path(said), at[0] if at else "127.0.0.1"))
