"""The table at the end of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from simulations.columns import COLUMNS, class_rows, outcome
from simulations.figures import Cell, Figures
from simulations.run_folder import REPORT

STUDENT_WIDTH = 12
TONES = {"good": "green", "bad": "red", "": ""}
CAPTION = "accuracies in %; rel.: the released student; up, down, FedAvg: per device and round"


def print_table(summary: Mapping[str, Any], console: Console, out: Path) -> None:
    """Print a run's table, a row per device class, and below it what is known of the run as a whole.

    Args:
        summary: the content of `summary.json`.
        console: where to print.
        out: the run folder.
    """
    facts = [str(summary["scenario"]), f"seed {summary['seed']}", f"{summary['rounds']} rounds"]
    _print(Figures.of_run(summary), ", ".join(facts), console, out)


def print_seeds(seeds: Mapping[str, Any], console: Console, out: Path) -> None:
    """Print the table of several seeds: each measured number as mean and, below it, standard deviation.

    Args:
        seeds: the content of `seeds.json`.
        console: where to print.
        out: the folder of the seeds' run folders.
    """
    numbers = ", ".join(str(seed) for seed in seeds["seeds"])
    _print(Figures.of_seeds(seeds), f"{seeds['scenario']}, mean ± std of seeds {numbers}", console, out)


def _print(figures: Figures, title: str, console: Console, out: Path) -> None:
    rows = class_rows(figures)
    everything = range(len(COLUMNS))
    wide, dense = _table(rows, everything, title, gap=2), _table(rows, everything, title, gap=1)
    if _fits(wide, console) or _fits(dense, console):
        console.print(wide if _fits(wide, console) else dense)
    else:
        # Folded numbers can't be read: a narrow terminal gets what the students cost in a table of its own.
        console.print(_table(rows, [place for place in everything if not COLUMNS[place].cost], title, gap=1))
        console.print()
        console.print(_table(rows, [place for place in everything if place == 0 or COLUMNS[place].cost], None, gap=1))
    console.print(Text(CAPTION, style="dim"))
    console.print()
    below = Table.grid(padding=(0, 2))
    for name, line in outcome(figures):
        below.add_row(Text(name, style="dim"), Text(line))
    console.print(below)
    # Paths are never wrapped, so that they can be copied; as Text, brackets in them are no markup.
    for name, path in (("run folder", out), ("report", out / REPORT)):
        console.print(Text.assemble((f"{name:<16}  ", "dim"), str(path)), soft_wrap=True)


def _fits(table: Table, console: Console) -> bool:
    """Return whether the table's natural width is within the console's; a measurement alone is clamped to it."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width


def _table(rows: Sequence[Sequence[Cell]], places: Sequence[int], title: str | None, gap: int) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),  # the box adds one blank between columns
        pad_edge=False,
        show_edge=False,
    )
    for place in places:
        column = COLUMNS[place]
        table.add_column(column.title, justify="left" if column.text else "right", vertical="top")
    for row in rows:
        table.add_row(*(_text(row[place], COLUMNS[place].title) for place in places))
    return table


def _text(cell: Cell, title: str) -> Text:
    shown = "\n".join(wrap(cell.text, STUDENT_WIDTH)) if title == "student" else cell.text
    text = Text(shown, style=TONES[cell.tone])
    if cell.spread:
        text.append(f"\n{cell.spread}", style="dim")
    return text
