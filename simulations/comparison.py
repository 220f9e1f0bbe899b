"""What a comparison shows of its methods: `compare.json`, a table, and accuracy against bytes in `compare.html`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedstill.files import write_atomic, write_json
from simulations.columns import Column
from simulations.figures import DASH, Cell, Form, percent, seconds, size
from simulations.page import PAGE
from simulations.plots import INK, colour, draw
from simulations.reached import Rows, over_devices, reached

JSON, PAGE_FILE = "compare.json", "compare.html"
COLUMNS = (
    Column("method", "* sends model weights; all others soft labels, or nothing", text=True),
    Column(
        "accuracy\n%", "released students before quantization, mean over devices; devices' own where none is released"
    ),
    Column("worst\nclass %", "the same of the device class that is worst"),
    Column("best\nround %", "the students after the best of all rounds, which nobody knows without the test set"),
    Column("last\nround %", "the same after the last round, before what a run does at its end"),
    Column("int8\n%", "released, quantized students"),
    Column("devices\n%", "the devices' own students"),
    Column("up", "bytes of all packets of all devices up"),
    Column("down", "bytes down"),
    Column("bytes", "both ways"),
    Column("time", "time spent in rounds"),
)
TO_TARGET = (
    Column("target\nrounds", "rounds until the students reached the target for the first time"),
    Column("target\nbytes", "bytes of all packets until then"),
)
WIDE = {"last\nround %", "up", "down"}  # for the page and the JSON: a terminal is narrow
MARK = "*"
NOTE = "accuracies on the global test set, mean ± std over seeds; bytes: all devices, all rounds; * sends model weights"


@dataclass(frozen=True)
class Entry:
    """A method's runs.

    Attributes:
        method: its name.
        sends_weights: whether its messages carry model weights.
        summaries: the content of each seed's `summary.json`.
        rounds: the lines of each seed's `rounds.jsonl`.
    """

    method: str
    sends_weights: bool
    summaries: Sequence[Mapping[str, Any]]
    rounds: Sequence[Rows]


def accuracy_of(found: Mapping[str, Any]) -> float | None:
    """Return the accuracy that a device class ends with: of what is released, or else of its devices."""
    released: float | None = found["accuracy_released_fp32"]
    devices: float | None = found["accuracy_devices"]
    return devices if released is None else released


def figures_of(summary: Mapping[str, Any], rows: Rows, target: float | None) -> dict[str, float | None]:
    """Return what is compared of one run; accuracies are fractions, means over devices.

    Args:
        summary: its `summary.json`.
        rows: lines of its `rounds.jsonl`.
        target: an accuracy whose cost is told; None: none is.
    """
    classes = summary["device_classes"]
    devices = {name: found["devices"] for name, found in classes.items()}

    def mean(key: str) -> float | None:
        return over_devices({name: found[key] for name, found in classes.items()}, devices)

    final = {name: accuracy_of(found) for name, found in classes.items()}
    wire = summary["wire"]
    curve = reached(rows, devices)
    rounds, spent = (None if target is None else curve.cost_of(target)) or (None, None)
    return {
        "accuracy": over_devices(final, devices),
        "accuracy_worst_class": min((value for value in final.values() if value is not None), default=None),
        "accuracy_best_round": curve.best,
        "accuracy_last_round": curve.last,
        "accuracy_int8": mean("accuracy_released"),
        "accuracy_devices": mean("accuracy_devices"),
        "uplink_bytes": wire["uplink_bytes"],
        "downlink_bytes": wire["downlink_bytes"],
        "bytes": wire["uplink_bytes"] + wire["downlink_bytes"],
        "proxy_bytes": wire["proxy_bytes"],
        "rounds_seconds": summary["timing"]["rounds_seconds"],
        "rounds_to_target": rounds,
        "bytes_to_target": spent,
    }


def compared(entry: Entry, target: float | None) -> dict[str, Any]:
    """Return a method's part of `compare.json`: mean and sample deviation over seeds, null for what a seed lacks."""
    runs = [figures_of(*run, target) for run in zip(entry.summaries, entry.rounds, strict=True)]
    commits = sorted({str(summary["commit"]) for summary in entry.summaries})
    result: dict[str, Any] = {"method": entry.method, "sends_weights": entry.sends_weights, "commits": commits}
    for key in runs[0]:
        values = [run[key] for run in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            result[key] = {"mean": None, "std": None}
        else:
            spread = float(statistics.stdev(known)) if len(known) > 1 else 0.0
            result[key] = {"mean": statistics.mean(known), "std": spread}
    return result


def write_comparison(
    out: Path, scenario: str, seeds: Sequence[int], entries: Sequence[Entry], target: float | None
) -> None:
    """Write `compare.json` and `compare.html`."""
    found = [compared(entry, target) for entry in entries]
    write_json(out / JSON, {"scenario": scenario, "seeds": list(seeds), "target": target, "methods": found})
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    rows = [_row(method, target) for method in found]
    part = {"title": "Methods", "columns": _columns(target), "rows": rows, "note": _note(target)}
    caption = (
        "Circles: soft labels; hollow squares: model weights; triangles: the worst device class; dashes: no message"
    )
    plots = [{"title": "Accuracy against bytes", "figures": [(caption, picture(found))]}]
    commits = sorted({str(summary["commit"]) for entry in entries for summary in entry.summaries})
    facts = [("scenario", scenario), ("seeds", ", ".join(map(str, seeds))), ("commit", ", ".join(commits))]
    page = template.render(
        title=f"Fedstill · methods on {Path(scenario).stem}",
        subtitle=f"{len(found)} methods, seeds {', '.join(map(str, seeds))}",
        cards=[],
        tables=[part],
        plots=plots,
        refused=[],
        facts=facts,
    )
    write_atomic(out / PAGE_FILE, page.encode())


def print_comparison(
    out: Path, scenario: str, seeds: Sequence[int], entries: Sequence[Entry], target: float | None, console: Console
) -> None:
    """Print the table and where everything lies."""
    title = f"{Path(scenario).stem}, seeds {', '.join(map(str, seeds))}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    columns = _columns(target)
    shown = [place for place, column in enumerate(columns) if column.title not in WIDE]
    for column in (columns[place] for place in shown):
        table.add_column(column.title, justify="left" if column.text else "right", no_wrap=True)
    for entry in entries:
        cells = _row(compared(entry, target), target)
        texts = [Text(cell.text).append(f"\n{cell.spread}" if cell.spread else "", "dim") for cell in cells]
        table.add_row(*(texts[place] for place in shown))
    console.print(table)
    console.print(Text(_note(target), style="dim"))
    for name in (JSON, PAGE_FILE):
        console.print(Text(str(out / name)), soft_wrap=True)


def _columns(target: float | None) -> tuple[Column, ...]:
    return COLUMNS if target is None else (*COLUMNS, *TO_TARGET)


def _note(target: float | None) -> str:
    return NOTE if target is None else f"{NOTE}; target: {100 * target:g} %"


def _row(found: Mapping[str, Any], target: float | None) -> list[Cell]:
    def cell(key: str, form: Form, spread: bool = True) -> Cell:
        mean, std = found[key]["mean"], found[key]["std"]
        if mean is None:
            return Cell(DASH)
        return Cell(form(mean), f"±{form(std)}" if spread and std else "")

    cost = [cell("rounds_to_target", "{:.1f}".format), cell("bytes_to_target", size, spread=False)]
    return [
        Cell(found["method"] + (f" {MARK}" if found["sends_weights"] else "")),
        cell("accuracy", percent),
        cell("accuracy_worst_class", percent),
        cell("accuracy_best_round", percent),
        cell("accuracy_last_round", percent),
        cell("accuracy_int8", percent),
        cell("accuracy_devices", percent),
        cell("uplink_bytes", size, spread=False),
        cell("downlink_bytes", size, spread=False),
        cell("bytes", size, spread=False),
        cell("rounds_seconds", seconds, spread=False),
        *(cost if target is not None else []),
    ]


def picture(found: Sequence[Mapping[str, Any]]) -> Markup:
    """Plot accuracy against total bytes, with deviations over seeds and the worst device class.

    Args:
        found: what `compared` returned of each method.
    """

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for place, method in enumerate(found):
            if method["accuracy"]["mean"] is not None:
                _point(axes, method, colour(place))
        if any(method["bytes"]["mean"] for method in found):
            axes.set_xscale("log")
            axes.margins(x=0.18)
        else:
            axes.set_xticks([])
        axes.set_xlabel("bytes of all packets, both ways, logarithmic")
        axes.set_ylabel("accuracy, %")

    return draw("methods", "accuracy against bytes of each method", (9.5, 4.6), fill)


def _point(axes: Axes, method: Mapping[str, Any], own: str) -> None:
    mean, std = 100 * method["accuracy"]["mean"], 100 * method["accuracy"]["std"]
    if not method["bytes"]["mean"]:
        axes.axhline(mean, color=own, linestyle="--", linewidth=1.1)
        axes.annotate(method["method"], (0, mean), (4, 3), ("axes fraction", "data"), "offset points", color=INK)
        return
    spent = method["bytes"]["mean"]
    worst = 100 * method["accuracy_worst_class"]["mean"]
    marker, face = ("s", "none") if method["sends_weights"] else ("o", own)
    axes.errorbar(
        [spent],
        [mean],
        xerr=[method["bytes"]["std"]],
        yerr=[std],
        fmt=marker,
        color=own,
        markerfacecolor=face,
        capsize=3,
        markersize=7,
        label=method["method"],
    )
    axes.plot([spent, spent], [worst, mean], color=own, linewidth=0.9, linestyle=":")
    axes.plot([spent], [worst], marker="v", color=own, markersize=5)
    mark = f" {MARK}" if method["sends_weights"] else ""
    axes.annotate(method["method"] + mark, (spent, mean), (8, 4), textcoords="offset points", color=INK)
