"""Virtual time as lines of the terminal and the report."""

from typing import Any

from simulations.figures import DASH, Figures, count


def duration(value: float) -> str:
    """Format seconds of virtual time with the unit that suits them."""
    for limit, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.1f} s"


def joules(value: float) -> str:
    """Format an energy."""
    for limit, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.1f} J"


def virtual_lines(figures: Figures) -> list[tuple[str, str]]:
    """Return pairs of a name and one line about virtual time; nothing for a run without a fleet."""
    if figures.value("fleet") is None:
        return []

    def each(key: str, form: Any) -> str:
        cells = ((name, figures.cell(form, "fleet", "device_classes", name, key)) for name in figures.classes)
        return ", ".join(f"{name} {cell.line}" for name, cell in cells)

    def one(form: Any, key: str) -> str:
        return figures.cell(form, "fleet", key).line

    policy = figures.value("fleet", "policy")
    lines = [
        (
            "virtual time",
            f"{one(duration, 'seconds')}, {policy} rounds of {one(duration, 'round_seconds_mean')}"
            f" ({one(duration, 'round_seconds_max')} at most)",
        ),
        ("energy", each("energy_joules", joules)),
        ("failed", each("failed", count)),
    ]
    if policy != "synchronous":
        stale = figures.cell(lambda value: f"{value:.2f}", "fleet", "staleness_mean")
        lines += [
            ("deadline misses", each("deadline_misses", count)),
            ("staleness", stale.line if stale.text == DASH else f"{stale.line} rounds on average"),
        ]
    return lines
