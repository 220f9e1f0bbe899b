"""The `evaluate` command: a table of all classes of a run, and of its teacher, measured on this machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedstill.files import write_json
from fedstill.loading import require
from fedstill.terminal import wide
from server.release.home import default_folder as default_keys
from simulations.figures import DASH, kilobytes, milliseconds, percent, times
from simulations.run_folder import Claim

# What an evaluation imports when it begins: it must be there.
require("onnx", "onnxruntime", "torch", "tuf")
TITLES = (
    "class",
    "file",
    "size kB",
    "RSS MB",
    "of the\nmodel MB",
    "p50\nms",
    "p99\nms",
    "power\nW",
    "mJ",
    "accuracy\n%",
)
NOTE = (
    "beside each figure its ratio to the teacher: times smaller, faster, and % of its accuracy kept; RSS is of a whole "
    "process; one thread"
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="Of each timing at most.")] = 2.0,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the keys that signed its students; default: the installation's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure all released students of a run, and its teacher, on this machine: one table, with ratios."""
    # Imported here: torch takes seconds, and whoever asks for help needs none of it.
    from client.evaluate.measure import Effort
    from server.release.keys import Keys
    from simulations.evaluation import FILE, check_finished, evaluate_run

    out, errors = run.resolve(), Console(stderr=True, soft_wrap=True, highlight=False)
    check_finished(out)
    trust = Keys((keys or default_keys()).resolve()).trust

    def tell(text: str) -> None:
        errors.print(text, style="dim", markup=False)

    found = evaluate_run(out, trust, Effort(seconds), tell)
    with Claim(out):
        write_json(out / FILE, found)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    table = table_of(found)
    console = wide(table)
    console.print(table)
    console.print(Text(NOTE, style="dim"))
    if found["power_missing"]:
        console.print(Text(f"no power: {found['power_missing']}", style="dim"))
    console.print(Text(str(out / FILE)), soft_wrap=True)


def table_of(found: Mapping[str, Any]) -> Table:
    """Return the table of an evaluation."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, title in enumerate(TITLES):
        table.add_column(title, justify="left" if place < 2 else "right", no_wrap=True)
    for row in found["rows"]:
        table.add_row(row["class"], *(_cells(row) if row["file"] else ["refused", *[DASH] * (len(TITLES) - 2)]))
    return table


def _cells(row: Mapping[str, Any]) -> list[str | Text]:
    ratios, power = row["to_teacher"] or {}, row["power"]

    def cell(text: str, key: str) -> Text:
        ratio = ratios.get(key)
        if ratio is None:
            return Text(text)
        return Text(text).append(f" {percent(ratio) + '%' if key == 'accuracy_kept' else times(ratio)}", "dim")

    latency = row["latency_ms"]["1"]
    energy = DASH if power is None or power["millijoules"] is None else f"{power['millijoules']:.3f}"
    return [
        row["file"],
        cell(kilobytes(row["bytes"]), "size"),
        cell(f"{row['peak_rss_bytes'] / 1e6:.1f}", "peak_rss"),
        cell(f"{row['model_rss_bytes'] / 1e6:.1f}", "model_rss"),
        cell(milliseconds(latency["p50"]), "latency"),
        Text(milliseconds(latency["p99"])),
        cell(DASH if power is None else f"{power['watts']:.2f}", "power"),
        cell(energy, "energy"),
        cell(percent(row["knowledge"]["accuracy"]), "accuracy_kept"),
    ]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)
