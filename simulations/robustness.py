"""Plot of accuracy under disturbance."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from simulations.plots import colour, draw


def robustness_plot(released: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Plot accuracy by strength, a panel per disturbance and a line per device class.

    Args:
        released: fields of `server.release.student.Released` by device class.
    """
    names = list(next(iter(released.values()))["robustness"])

    def fill(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, disturbance in zip(panels, names, strict=True):
            for place, (name, facts) in enumerate(released.items()):
                curve = facts["robustness"][disturbance]
                levels = [float(level) for level in curve]
                values = [100 * value for value in curve.values()]
                axes.plot(levels, values, color=colour(place), marker="o", markersize=3, label=name)
            axes.set_title(disturbance)
            axes.set_xlabel("strength")
        panels[0].set_ylabel("accuracy, %")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)

    return draw("robustness", "accuracy of each released student under disturbance", (11.5, 3.2), fill)
