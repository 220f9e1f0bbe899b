"""A grid whose replies come one by one, as hosts answer, and not all when the last has answered."""

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

SHORTEST, LONGEST = 0.1, 3.0
"""Seconds between two looks for replies."""
SHARE = 10.0
"""Times as long as a look took: a server that is busy with its devices is not kept from them."""


class StreamingGrid(Grid):
    """Another grid, asked for what is there again and again.

    Flower's own grids give out the first reply of a round when the last has come.

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
        while awaited:
            began = time.monotonic()
            late = end is not None and began > end
            found = list(self.pull_messages(list(awaited)))
            pause = min(LONGEST, max(SHORTEST, SHARE * (time.monotonic() - began)))
            for reply in found:
                awaited.discard(reply.metadata.reply_to_message_id)
                yield reply
            if not awaited or late:
                return
            time.sleep(pause)
