"""An evaluation as tables for people."""

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.evaluate.evaluation import NO_DATA, Evaluated
from client.evaluate.measure import PERCENTILES, Cost, Knowledge, Power

DASH = "—"


def show(found: Evaluated, console: Console) -> None:
    """Print what was measured."""
    manifest, machine = found.manifest, found.machine
    release = f"{manifest.device_class} version {manifest.version}, {manifest.student} on task {manifest.task}"
    cores = f"{machine.cores} {'emulated ' if machine.emulated else ''}cores"
    console.print(Text(f"{release}; {machine.model}, {cores}, {machine.memory_mb} MB"))
    console.print(_costs(found))
    first = found.known.get(manifest.artifact)
    if first is not None:
        text = f"{manifest.artifact}: accuracy in % under disturbance, {first.disturbed_samples} samples (strength)"
        console.print(Text(text))
        console.print(_disturbed(first))
    if found.no_power:
        console.print(Text(f"no power: {found.no_power}", style="dim"))
    if not found.known:
        console.print(Text(f"no accuracy: {NO_DATA}", style="dim"))


def _costs(found: Evaluated) -> Table:
    table, costs = _table("", *found.costs), list(found.costs.values())

    def row(title: str, cell: Callable[[Cost], str]) -> None:
        table.add_row(title, *(cell(cost) for cost in costs))

    row("size, kB", lambda cost: f"{cost.bytes / 1e3:,.1f}")
    row("peak RSS, MB (of the model)", lambda c: f"{c.peak_rss_bytes / 1e6:.1f} ({c.model_rss_bytes / 1e6:.1f})")
    for threads in dict.fromkeys(("1", str(costs[0].threads))):
        for part in PERCENTILES:
            title = f"latency p{part}, {threads} thread{'' if threads == '1' else 's'}, ms"
            row(title, lambda cost, t=threads, p=part: f"{getattr(cost.latency_ms[t], f'p{p}'):.3f}")  # type: ignore[misc]
    row("throughput, samples/s", lambda cost: f"{cost.samples_per_second:,.0f}")
    row("power idle → busy, W", lambda cost: _watts(cost.power))
    row("energy per sample, mJ", lambda cost: _millijoules(cost.power))
    known = [found.known.get(name) for name in found.costs]
    table.add_row("accuracy, %", *(DASH if own is None else f"{100 * own.accuracy:.1f}" for own in known))
    return table


def _disturbed(known: Knowledge) -> Table:
    table = _table("", "none", "weak", "middle", "strong")
    for name, levels in known.disturbed.items():
        cells = [f"{100 * own:.1f}" + ("" if level == "0" else f" ({level})") for level, own in levels.items()]
        table.add_row(name, *cells)
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", no_wrap=True)
    return table


def _watts(power: Power | None) -> str:
    return DASH if power is None else f"{power.idle_watts:.2f} → {power.watts:.2f} ({power.sensor})"


def _millijoules(power: Power | None) -> str:
    return DASH if power is None or power.millijoules is None else f"{power.millijoules:.3f}"
