"""Plots of what happened round by round."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from simulations.plots import INK, colour, draw

Rows = Sequence[Mapping[str, Any]]
DASHED, DOTTED, DASH_DOT = (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))
PANEL_COLUMNS = 4


def accuracy_plot(runs: Sequence[Rows], summary: Mapping[str, Any]) -> Markup:
    """Plot accuracy by round, a panel per device class; several runs as their mean with a band of ± std.

    Args:
        runs: lines of `rounds.jsonl` of each run.
        summary: a summary or the mean of several, for the reference lines.
    """
    names = list(summary["device_classes"])
    columns = min(len(names), PANEL_COLUMNS)
    lines = -(-len(names) // columns)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for place, name in enumerate(names):
            _panel(panels.flat[place], runs, summary, name, colour(place))
        for axes in panels[:, 0]:
            axes.set_ylabel("accuracy, %")
        figure.legend(handles=_handles(len(runs)), loc="outside lower center", ncols=6)

    return draw("accuracy", "accuracy by round and device class", (11.5, 2.9 * lines + 0.4), fill)


def _panel(axes: Axes, runs: Sequence[Rows], summary: Mapping[str, Any], name: str, own: str) -> None:
    found = summary["device_classes"][name]
    for value, style, shade in (
        (summary["central"]["accuracy"], DASH_DOT, INK),
        (found["accuracy_teacher_only"], DOTTED, own),
        (found["accuracy_local_only"], DASH_DOT, own),
    ):
        if value is not None:
            axes.axhline(100 * value, color=shade, linestyle=style, linewidth=1.1)
    _curve(axes, runs, ("teacher_accuracy",), INK, "-", 1.3)
    _curve(axes, runs, ("device_accuracy", name), own, DASHED, 1.5)
    _curve(axes, runs, ("released_accuracy", name), own, "-", 2.2)
    axes.set_title(name, color=own, fontweight="bold")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _handles(runs: int) -> list[Line2D]:
    band = "" if runs == 1 else " (band: ± std)"
    styles: tuple[tuple[str, str, Any], ...] = (
        (f"class student{band}", "#7f8790", "-"),
        ("mean of devices", "#7f8790", DASHED),
        ("teacher-only", "#7f8790", DOTTED),
        ("local-only", "#7f8790", DASH_DOT),
        ("teacher", INK, "-"),
        ("central ceiling", INK, DASH_DOT),
    )
    return [Line2D([], [], color=shade, linestyle=style, label=label) for label, shade, style in styles]


def _curve(axes: Axes, runs: Sequence[Rows], path: tuple[str, ...], shade: str, style: Any, width: float) -> None:
    """Draw a fraction by round in percent; rounds in which a run has no value leave a gap."""
    rounds = [row["round"] for row in min(runs, key=len)]
    values = 100 * np.stack([series(run, path)[: len(rounds)] for run in runs])
    mean = values.mean(axis=0)
    axes.plot(rounds, mean, color=shade, linestyle=style, linewidth=width, marker=_marker(rounds), markersize=3)
    if len(runs) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(rounds, mean - std, mean + std, color=shade, alpha=0.18, linewidth=0)


def _marker(rounds: Sequence[int]) -> str:
    """Return the marker of a curve: a single round makes no line, and would not be seen without one."""
    return "o" if len(rounds) == 1 else ""


def series(rows: Rows, path: tuple[str, ...]) -> NDArray[np.float64]:
    """Return a value of each row by its path of keys, NaN for null `[rounds]`."""
    values = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        found: Any = row
        for key in path:
            found = found.get(key) if found is not None else None
        if found is not None:
            values[place] = found
    return values


def bytes_plot(rows: Rows, summary: Mapping[str, Any]) -> Markup:
    """Plot cumulative bytes of all devices by round against FedAvg's, of both ways and all rounds the mean."""
    classes = summary["device_classes"].values()
    rounds = np.array([row["round"] for row in rows])
    fedavg = rounds * sum(found["devices"] * found["fedavg_bytes_per_round"] for found in classes) / 2

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        marker = _marker(list(rounds))
        for key, shade, label in (("uplink_bytes", colour(0), "up"), ("downlink_bytes", colour(1), "down")):
            values = series(rows, (key,))
            # A logarithmic axis has no place for the nothing of a first round.
            values[values <= 0] = np.nan
            axes.plot(rounds, values / 1e6, color=shade, label=label, marker=marker)
        axes.plot(rounds, fedavg / 1e6, color=INK, linestyle=DASHED, label="FedAvg, each way", marker=marker)
        axes.set_yscale("log")
        _finish(axes, "MB, all devices, cumulative")

    return draw("bytes", "cumulative bytes by round against FedAvg", (5.6, 3.1), fill)


def entropy_plot(rows: Rows) -> Markup:
    """Plot the mean entropy of the devices' answers and of the consensus by round."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        rounds = [row["round"] for row in rows]
        for key, shade, label in (
            ("entropy_before", colour(3), "answers of the devices"),
            ("entropy_after", colour(2), "consensus"),
        ):
            axes.plot(rounds, series(rows, (key,)), color=shade, label=label, marker=_marker(rounds))
        axes.set_ylim(bottom=0)
        _finish(axes, "nats")

    return draw("entropy", "entropy before and after the consensus by round", (5.6, 3.1), fill)


def _finish(axes: Axes, unit: str) -> None:
    axes.set_xlabel("round")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.legend()
