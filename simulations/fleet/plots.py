"""Virtual time as pictures of the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from simulations.curves import DASHED, Rows, series
from simulations.plots import INK, colour, draw

SIZE = (5.6, 3.1)


def time_accuracy_plot(rows: Rows, summary: Mapping[str, Any]) -> Markup:
    """Plot the class students' accuracy over virtual time."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        times, unit = _times(rows)
        for place, name in enumerate(summary["device_classes"]):
            values = 100 * series(rows, ("released_accuracy", name))
            axes.plot(times, values, color=colour(place), label=name, marker="o", markersize=3)
        axes.set_xlabel(f"virtual time, {unit}")
        axes.set_ylabel("accuracy, %")
        axes.legend()

    return draw("virtual-accuracy", "accuracy of the class students over virtual time", SIZE, fill)


def answers_plot(rows: Rows, summary: Mapping[str, Any]) -> Markup:
    """Plot when the answers of each class come after they were asked for, by round, beside the rounds' lengths."""

    def fill(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        rounds = np.array([row["round"] for row in rows])
        for place, name in enumerate(summary["device_classes"]):
            path = ("virtual", "device_classes", name, "answer_seconds")
            low, middle, high = (series(rows, (*path, key)) for key in ("fastest", "median", "slowest"))
            axes.plot(rounds, middle, color=colour(place), label=name, marker="o", markersize=3)
            axes.fill_between(rounds, low, high, color=colour(place), alpha=0.18, linewidth=0)
        lengths = series(rows, ("virtual", "round_seconds"))
        axes.plot(rounds, lengths, color=INK, linestyle=DASHED, label="the round", marker="o", markersize=3)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_xlabel("round")
        axes.set_ylabel("seconds of virtual time")
        axes.legend()

    return draw("virtual-answers", "time until the answers come, by round and device class", SIZE, fill)


def _times(rows: Rows) -> tuple[Any, str]:
    """Return when each round ended, in a unit that suits the last, and the unit."""
    ends = series(rows, ("virtual", "end_seconds"))
    for limit, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if ends[-1] >= 2 * limit:
            return ends / limit, unit
    return ends, "seconds"
