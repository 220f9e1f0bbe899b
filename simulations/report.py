"""`report.html`: one page that holds everything it shows, plots included, and loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from fedstill.files import write_atomic
from server.release.checks import Check
from simulations.columns import COLUMNS, Column, class_rows, gain_cell, outcome
from simulations.curves import Rows, accuracy_plot, bytes_plot, entropy_plot
from simulations.figures import DASH, Cell, Figures, percent, points, seconds, size, times
from simulations.fleet.plots import answers_plot, time_accuracy_plot
from simulations.heatmaps import confusion_plot, partition_plot
from simulations.page import PAGE
from simulations.robustness import robustness_plot
from simulations.run_folder import REPORT

CHECK_COLUMNS = (
    Column("class", "device class", text=True),
    Column("fp32 %", "accuracy of the fp32 ONNX file"),
    Column("quantized %", "accuracy of the released file"),
    Column("drop pts", "accuracy that quantization cost, in points"),
    Column("95 % interval", "of the drop, paired by sample"),
    Column("torch difference", "largest relative difference of the fp32 file's logits from torch"),
    Column("operators", "operators whose weights are in the numbers of the format"),
    Column("file", "relative to the run folder", text=True),
)


GATE_COLUMNS = (
    Column("class", "device class", text=True),
    Column("check", "what was checked", text=True),
    Column("found", "the figure", text=True),
    Column("allowed", "its limit, if there is one", text=True),
    Column("outcome", "whether it holds", text=True),
)
SHOWN_REFUSALS = 200
Refused = tuple[Any, str, str]
"""Round, device and reason."""


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    name: str
    cell: Cell
    unit: str
    note: str


@dataclass(frozen=True)
class Part:
    """A table with its heading."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str


@dataclass(frozen=True)
class Group:
    """Plots under one heading, each with its caption."""

    title: str
    figures: Sequence[tuple[str, Markup]]


def write_report(
    out: Path,
    summary: Mapping[str, Any],
    rows: Rows,
    released: Mapping[str, Mapping[str, Any]],
    partition: Sequence[NDArray[np.int64]],
    labels: NDArray[np.int64],
    label_names: Sequence[str],
) -> None:
    """Write the report of a run.

    Args:
        out: the run folder.
        summary: the content of `summary.json`.
        rows: the lines of `rounds.jsonl`.
        released: fields of `server.release.student.Released` by device class.
        partition: rows into `labels` of each device, each `[samples of the device]`.
        labels: true classes of the private samples `[samples]`.
        label_names: names of the classes, in the order of their indices.
    """
    figures = Figures.of_run(summary)
    exchange = []
    if rows[-1]["uplink_bytes"]:
        exchange.append(("Bytes of all packets so far, logarithmic", bytes_plot(rows, summary)))
    if rows[-1]["entropy_after"] is not None:
        exchange.append(("Mean entropy of the soft labels, before and after the consensus", entropy_plot(rows)))
    confusion, robustness = [], []
    if released:
        confusion.append(("Test samples; shades are shares of a true class", confusion_plot(released, label_names)))
        strengths = "Accuracy of the released students on disturbed test samples, by strength"
        if any(found["robustness"] for found in released.values()):
            robustness.append((strengths, robustness_plot(released)))
    plots = [
        Group("Accuracy by round", [("On the global test set, by device class", accuracy_plot([rows], summary))]),
        Group("Virtual time", _virtual(summary, rows)),
        Group("Exchange", exchange),
        Group("Confusion of the released students", confusion),
        Group("Robustness", robustness),
        Group(
            "Private data",
            [("Samples of each class on each device", partition_plot(partition, labels, label_names))],
        ),
    ]
    checks = Part(
        "Quantization check",
        CHECK_COLUMNS,
        [_check(name, released[name], figures) for name in figures.classes if name in released],
        "A drop whose interval contains 0 can't be told from none.",
    )
    gates = Part(
        "Release checks",
        GATE_COLUMNS,
        [_gate(name, check) for name in figures.classes if name in released for check in released[name]["checks"]],
        "A class that misses one is not released: its models stay in the run folder, without manifest and signature.",
    )
    refused = [(row["round"], device, reason) for row in rows for device, reason in row["refused"].items()]
    facts = [("scenario", summary["scenario"]), ("seed", summary["seed"]), *_facts(figures)]
    subtitle = f"seed {summary['seed']} · {_fleet(summary)} · {summary['engine']} engine"
    _write(
        out,
        str(summary["scenario"]),
        subtitle,
        figures,
        [checks, gates] if released else [],
        [group for group in plots if group.figures],
        _first(refused),
        facts,
    )


def write_seeds_report(out: Path, seeds: Mapping[str, Any], curves: Mapping[int, Rows]) -> None:
    """Write the report of several seeds.

    Args:
        out: the folder of the seeds' run folders.
        seeds: the content of `seeds.json`.
        curves: the lines of `rounds.jsonl` by seed.
    """
    figures = Figures.of_seeds(seeds)
    numbers = ", ".join(str(seed) for seed in seeds["seeds"])
    caption = "On the global test set, by device class; mean over seeds"
    plots = [Group("Accuracy by round", [(caption, accuracy_plot(list(curves.values()), seeds["mean"]))])]
    refused = [
        (f"{row['round']} (seed {seed})", device, reason)
        for seed, rows in curves.items()
        for row in rows
        for device, reason in row["refused"].items()
    ]
    facts = [("scenario", seeds["scenario"]), ("seeds", numbers), *_facts(figures)]
    subtitle = f"mean ± standard deviation of seeds {numbers} · {_fleet(seeds['mean'])}"
    _write(out, str(seeds["scenario"]), subtitle, figures, [], plots, _first(refused), facts)


def _first(refused: list[Refused]) -> list[Refused]:
    """Return as many refusals as a person would read; all of them are in `rounds.jsonl`."""
    more = len(refused) - SHOWN_REFUSALS
    return refused if more <= 0 else [*refused[:SHOWN_REFUSALS], ("", "", f"and {more:,} more, in rounds.jsonl")]


def _virtual(summary: Mapping[str, Any], rows: Rows) -> list[tuple[str, Markup]]:
    if "fleet" not in summary:
        return []
    return [
        ("Accuracy of the class students over virtual time", time_accuracy_plot(rows, summary)),
        ("When answers come: median, fastest and slowest of a class, logarithmic", answers_plot(rows, summary)),
    ]


def _write(
    out: Path,
    scenario: str,
    subtitle: str,
    figures: Figures,
    more_tables: Sequence[Part],
    plots: Sequence[Group],
    refused: Sequence[Refused],
    facts: Sequence[tuple[str, Any]],
) -> None:
    note = "Accuracies in %, on the global test set. Bytes per device and round; kB = 1000 bytes."
    classes = Part("Device classes", COLUMNS, class_rows(figures), note)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    page = template.render(
        title=f"Fedstill · {scenario}",
        subtitle=subtitle,
        cards=_cards(figures),
        tables=[classes, *more_tables],
        plots=plots,
        refused=refused,
        facts=facts,
    )
    write_atomic(out / REPORT, page.encode())


def _fleet(summary: Mapping[str, Any]) -> str:
    classes = summary["device_classes"]
    devices = sum(found["devices"] for found in classes.values())
    return f"{devices} devices in {len(classes)} classes · {summary['rounds']} rounds"


def _facts(figures: Figures) -> list[tuple[str, Any]]:
    configured = [(key, figures.value(key)) for key in ("rounds", "engine", "commit")]
    return [*((key, DASH if value is None else value) for key, value in configured), *outcome(figures)]


def _cards(figures: Figures) -> list[Card]:
    def traffic(key: str) -> str:
        return figures.cell(size, "wire", key).text

    gap = figures.cell(percent, "derived", "gap_closed")
    central = figures.cell(percent, "central", "accuracy").text
    first, last = (figures.cell(percent, "teacher", f"accuracy_{when}") for when in ("initial", "final"))
    return [
        Card("mean federation gain", gain_cell(figures, "gain_mean"), " pts", "over local- and teacher-only"),
        Card("worst class gain", gain_cell(figures, "gain_worst"), " pts", "must be above zero"),
        Card("gap closed", gap, "" if gap.text == DASH else " %", f"to the central ceiling of {central} %"),
        Card("teacher", last, *(("", "none") if figures.value("teacher") is None else (" %", f"from {first.text} %"))),
        Card(
            "FedAvg bytes",
            figures.cell(times, "derived", "fedavg_ratio_total"),
            "",
            f"as much as {traffic('uplink_bytes')} up, {traffic('downlink_bytes')} down",
        ),
        Card(
            "wall time",
            figures.cell(seconds, "timing", "wall_seconds"),
            "",
            f"peak memory {figures.cell(size, 'peak_rss_bytes').text}",
        ),
    ]


def _check(name: str, found: Mapping[str, Any], figures: Figures) -> list[Cell]:
    low, high = found["drop_interval"]
    return [
        Cell(name),
        Cell(percent(found["accuracy_fp32"])),
        Cell(percent(found["accuracy_int8"])),
        Cell(points(found["accuracy_fp32"] - found["accuracy_int8"])),
        Cell(f"{points(low)} to {points(high)}"),
        Cell(f"{found['torch_difference']:.1e}"),
        Cell(str(found["quantized_operators"])),
        Cell(str(figures.value("device_classes", name, "artifact"))),
    ]


def _gate(name: str, check: Check) -> list[Cell]:
    miss = "refused" if check.refuses else "missed, only reported"
    outcome_cell = Cell("holds") if check.passed else Cell(miss, tone="bad")
    return [Cell(name), Cell(check.name), Cell(check.figure), Cell(check.limit or DASH), outcome_cell]
