"""The picture of a search: accuracy against size, memory and latency of all that was tried, front and choice."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedstill.files import write_atomic
from server.compress.figures import LIMITED
from simulations.compress.plan import CompressPlan
from simulations.compress.search import Tried
from simulations.plots import COLOURS, INK

AXES = {
    "bytes": ("size, kB", 1e-3),
    "memory_bytes": ("peak memory, kB", 1e-3),
    "latency_ms": ("latency, ms", 1.0),
}
OTHERS = "#b0b7bf"


def write_picture(path: Path, plan: CompressPlan, tried: Sequence[Tried], front: Sequence[Tried], best: Tried) -> None:
    """Write a PNG with a panel for each cost."""
    figure = Figure(figsize=(11.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    for axes, key in zip(panels, AXES, strict=True):
        _panel(axes, key, plan, tried, front, best)
    panels[0].set_ylabel("accuracy on validation samples, %")
    where = "as its devices take" if plan.latency.source == "devices" else "on this machine"
    figure.suptitle(f"{plan.device_class}: {len(tried)} students tried, latency {where}", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    write_atomic(path, content.getvalue())


def _panel(
    axes: Axes, key: str, plan: CompressPlan, tried: Sequence[Tried], front: Sequence[Tried], best: Tried
) -> None:
    title, scale = AXES[key]

    def places(ones: Sequence[Tried]) -> tuple[list[float], list[float]]:
        return [getattr(one.figures, key) * scale for one in ones], [100 * one.figures.accuracy for one in ones]

    numbers = {one.number for one in front}
    axes.scatter(*places([one for one in tried if one.number not in numbers]), s=16, color=OTHERS, label="tried")
    for place, numeric in enumerate(plan.formats):
        own = [one for one in front if one.parameters["format"] == numeric]
        axes.scatter(*places(own), s=34, color=COLOURS[place % len(COLOURS)], label=f"front, {numeric}")
    hand_made = [one for one in tried if one.hand_made]
    axes.scatter(*places(hand_made), s=70, marker="s", facecolors="none", edgecolors=INK, label="hand-made")
    axes.scatter(*places([best]), s=130, facecolors="none", edgecolors=COLOURS[4], linewidths=1.8, label="chosen")
    axes.set_xlabel(title)
    axes.grid(visible=True, linewidth=0.4)
    limit = plan.budget.model_dump()[LIMITED[key]]
    low, high = axes.get_xlim()
    if limit is not None and low <= limit * scale <= high:
        axes.axvline(limit * scale, color=COLOURS[4], linestyle=":", label="_budget")
