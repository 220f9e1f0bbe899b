"""Parts of a run's step, such as the devices of a round: what computes one tells it to the run of its process.

Apart from `simulations.progress`, whose terminal library workers do without.
"""

from collections.abc import Callable
from contextvars import ContextVar

listener: "ContextVar[Callable[[], None] | None]" = ContextVar("listener", default=None)
"""What a run of this process is told with."""


def part_done() -> None:
    """Tell the run of this process, if there is one, that a part of its step is done."""
    told = listener.get()
    if told is not None:
        told()
