"""A grid whose replies come one by one, as hosts answer, and not all when the last has answered."""

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

SHORTEST, LONGEST, GROWTH = 0.1, 3.0, 1.5
"""Seconds between two looks for replies: after a reply, at most, and by how much they grow while there is none."""


class StreamingGrid(Grid):
    """Another grid, asked for what is there again and again.

    Flower's own grids hold all of a round's replies in memory before they give out the first, and look every three
    seconds.

    Args:
        grid: Flower's.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        """Set the run that this grid belongs to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message; Flower keeps this for older apps."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and return their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, each once."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Yield the replies until all have come, or for so many seconds."""
        awaited = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        pause = SHORTEST
        while awaited:
            for reply in self.pull_messages(list(awaited)):
                awaited.discard(reply.metadata.reply_to_message_id)
                pause = SHORTEST
                yield reply
            if not awaited or (end is not None and time.monotonic() > end):
                return
            time.sleep(pause)
            pause = min(LONGEST, GROWTH * pause)
