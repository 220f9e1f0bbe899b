"""Plots of counts: confusion matrices and the partition."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulations.plots import INK, colour, draw

PANEL_COLUMNS = 4
# More classes or devices than these make cells too small for a number, or tick labels that overlap.
NUMBERED_CLASSES, NUMBERED_DEVICES, TICKS = 12, 30, 40
DRAWN_CELLS = 5000


def confusion_plot(released: Mapping[str, Mapping[str, Any]], label_names: Sequence[str]) -> Markup:
    """Plot the confusion matrix of each class's released student; shades are shares of a true class."""
    names = list(released)
    columns = min(len(names), PANEL_COLUMNS)
    lines = -(-len(names) // columns)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        for place, name in enumerate(names):
            counts = np.asarray(released[name]["confusion"], dtype=np.int64)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axes = panels.flat[place]
            _heatmap(axes, counts, shares, colour(place), len(label_names) <= NUMBERED_CLASSES)
            _ticks(axes, label_names, label_names)
            axes.set_aspect("equal")
            axes.set_title(name, color=colour(place), fontweight="bold")
            axes.set_xlabel("predicted")
        for axes in panels[:, 0]:
            axes.set_ylabel("true")

    alt = "confusion matrix of each released student"
    return draw("confusion", alt, (11.5, 11.5 / max(columns, 3) * lines + 0.4), fill)


def class_counts(partition: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many samples of each class each device has `[devices, classes]`."""
    return np.stack([np.bincount(labels[rows], minlength=classes) for rows in partition])


def partition_plot(
    partition: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], label_names: Sequence[str]
) -> Markup:
    """Plot how many samples of each class each device has."""
    counts = class_counts(partition, labels, len(label_names)).T
    numbered = len(label_names) <= NUMBERED_CLASSES and len(partition) <= NUMBERED_DEVICES

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        # The square root keeps small counts visible beside a device that has nearly all of a class.
        _heatmap(axes, counts, np.sqrt(counts / max(counts.max(), 1)), colour(0), numbered)
        _ticks(axes, [str(device) for device in range(len(partition))], label_names)
        axes.set_xlabel("device")
        axes.set_ylabel("class")

    height = 0.8 + 0.24 * min(len(label_names), TICKS)
    return draw("partition", "samples of each class on each device", (11.5, height), fill)


def _heatmap(axes: Axes, counts: NDArray[np.int64], shades: NDArray[np.float64], own: str, numbered: bool) -> None:
    """Draw counts `[rows, columns]` with shades in [0, 1] as opacity, which suits light and dark pages."""
    cells = np.empty((*counts.shape, 4))
    cells[..., :3] = to_rgb(own)
    cells[..., 3] = shades
    # A shape for each of very many cells would make a page of many MB.
    axes.pcolormesh(cells, edgecolors="none", linewidth=0, rasterized=counts.size > DRAWN_CELLS)
    axes.set_ylim(counts.shape[0], 0)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if numbered:
        for row, column in np.argwhere(counts > 0):
            axes.text(
                column + 0.5,
                row + 0.52,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shades[row, column] > 0.55 else INK,
            )


def _ticks(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    across, down = -(-len(columns) // TICKS), -(-len(rows) // TICKS)
    turned = 90 if max(map(len, columns)) > 3 else 0
    axes.set_xticks(np.arange(0, len(columns), across) + 0.5, columns[::across], rotation=turned)
    axes.set_yticks(np.arange(0, len(rows), down) + 0.5, rows[::down])
