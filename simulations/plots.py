"""Plots as SVG that a page can hold inline: they take its text colour and font, so they fit light and dark."""

import io
import re
import threading
from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

# Drawn with these, replaced by the page's own colours in the SVG; no plot uses them for anything else.
INK, GRID = "#1b1f24", "#d0d7de"
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--line)"}
# Readable on white and on black; told apart by colour-blind readers too.
COLOURS = ("#1f83d1", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# Any: the type of its keys differs between matplotlib's versions.
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedstill",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Matplotlib's settings are global: one plot at a time.
_LOCK = threading.Lock()


def colour(place: int) -> str:
    """Return the colour of the device class at this place."""
    return COLOURS[place % len(COLOURS)]


def draw(name: str, alt: str, size: tuple[float, float], fill: Callable[[Figure], None]) -> Markup:
    """Return a plot as an `<svg>` element without fixed size.

    Args:
        name: prefix of the ids in it, unique on the page.
        alt: what it shows, for those who can't see it.
        size: width and height in inches.
        fill: draws on the figure.
    """
    with _LOCK, rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        buffer = io.StringIO()
        # None: no date, no creator; the same run makes the same page.
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for drawn, wanted in PAGE_COLOURS.items():
        svg = svg.replace(drawn, wanted)
    label = Markup('<svg role="img" aria-label="{}"').format(alt)
    return Markup(svg.replace("<svg", label, 1))
