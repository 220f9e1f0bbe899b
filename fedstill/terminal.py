"""Tables on a terminal, whole: what is cut off a figure makes another one of it."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

MOST = 1000  # columns


def wide(table: Table) -> Console:
    """Return a console as wide as a table needs; a terminal that is narrower breaks its lines."""
    console = Console(highlight=False)
    needed = Measurement.get(console, console.options.update(width=MOST), table).maximum
    return Console(highlight=False, width=max(console.width, needed))
