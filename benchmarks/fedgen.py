"""FedGen's MNIST table (Zhu et al. 2021, arXiv 2105.10056): soft labels alone beside FedAvg in the same harness.

`python -m benchmarks.fedgen run --out FOLDER --data-dir DATA_DIR` runs `fedstill simulate fedgen-mnist` for each
method, alpha and seed, `--jobs` at a time with one worker each; runs that are finished are not repeated. It writes
`FOLDER/table.json`. `python -m benchmarks.fedgen table [FILE]` prints a file's table, by default the stored one's.

`fedavg` is the published protocol: 20 steps of plain SGD with batches of 32 and a constant learning rate of 0.01.
`fedstill-thousandth` is the product with less than a thousandth of FedAvg's bytes. References, which the table does not
show, are left out.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.finished import finished
from benchmarks.tables import spread
from fedstill.files import write_json

STORED = Path(__file__).parent / "results" / "fedgen" / "table.json"
ALPHAS = (0.05, 0.1, 1.0)
PUBLISHED = {
    "FedAvg": ("87.7", "90.2", "93.8"),
    "FedDistill (soft labels alone)": ("70.6", "64.1", "79.9"),
    "FedDFusion (weights, and a proxy set)": ("90.0", "91.1", "93.4"),
    "FedGen (weights, and a generator)": ("91.3", "93.0", "95.5"),
}
"""Accuracy of the server's model in percent by alpha, as published."""
NO_REFERENCES = ("references.local_only=0", "references.central=false")
METHODS: dict[str, tuple[str, ...]] = {
    "fedavg": (
        "device.revisit.momentum=0",
        "device.revisit.weight_decay=0",
        "device.revisit.decay=constant",
        "device.revisit.augment=none",
    ),
    "fedstill": NO_REFERENCES,
    # Labels of one class each, both ways, and as many as a thousandth of FedAvg's bytes leaves room for at alpha 1.
    "fedstill-thousandth": (
        *NO_REFERENCES,
        "exchange.uplink=simplex1",
        "exchange.downlink=simplex1",
        "exchange.per_round=40",
    ),
}
NAMES = {
    "fedavg": "FedAvg, here",
    "fedstill": "**Fedstill (soft labels alone), here**",
    "fedstill-thousandth": "**the same with 1-bit labels, 40 a round**",
}


def overlay(method: str) -> str:
    """Return the name by which `fedstill simulate --method` knows a row's method."""
    return method.partition("-")[0]


def facts(method: str, alpha: float, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table needs of a run's summary."""
    ((_, found),) = summary["device_classes"].items()
    return {
        "method": method,
        "alpha": alpha,
        "seed": summary["seed"],
        "commit": summary["commit"],
        "rounds": summary["rounds"],
        "accuracy": found["accuracy_released_fp32"],
        "accuracy_int8": found["accuracy_released"],
        "bytes": summary["wire"]["uplink_bytes"] + summary["wire"]["downlink_bytes"],
        "device_steps": found["device_steps"],
        "device_samples": found["device_samples"],
    }


def run(options: argparse.Namespace) -> None:
    """Run what is missing and write the table's file."""

    def one(call: tuple[str, float, int]) -> dict[str, Any]:
        method, alpha, seed = call
        out = options.out / f"{method}-{alpha:g}" / f"seed-{seed}"
        out.parent.mkdir(parents=True, exist_ok=True)
        changes = [f"partition.alpha={alpha:g}", *METHODS[method]]
        begin = ["--method", overlay(method), "--seed", str(seed)]
        with out.with_name(f"seed-{seed}.log").open("a") as log:
            found = finished(out, "fedgen-mnist", changes, begin, data_dir=options.data_dir, workers=1, log=log)
        return facts(method, alpha, found)

    calls = list(product(options.methods, options.alphas, options.seeds))
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(one, calls))
    write_json(options.out / "table.json", rows)
    print(table(rows))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return runs as a markdown table beside the published figures: mean and deviation over seeds."""
    by_cell: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_cell.setdefault((row["method"], row["alpha"]), []).append(row)
    lines = [
        "| | " + " | ".join(f"alpha {alpha:g}" for alpha in ALPHAS) + " | MB, both ways | device steps | samples |",
        "| --- |" + " --- |" * (len(ALPHAS) + 3),
        *(f"| {name}, published | " + " | ".join(found) + " | | | |" for name, found in PUBLISHED.items()),
    ]
    for method, name in NAMES.items():
        cells = [by_cell.get((method, alpha), []) for alpha in ALPHAS]
        every = [row for cell in cells for row in cell]
        if every:
            sums = [
                _range(every, key, scale) for key, scale in (("bytes", 1e6), ("device_steps", 1), ("device_samples", 1))
            ]
            lines.append("| " + " | ".join([name, *(_spread(cell) for cell in cells), *sums]) + " |")
    return "\n".join(lines)


def _spread(rows: Sequence[Mapping[str, Any]]) -> str:
    return spread([100 * row["accuracy"] for row in rows], digits=1)


def _range(rows: Sequence[Mapping[str, Any]], key: str, scale: float) -> str:
    values = [row[key] / scale for row in rows]
    low, high = (f"{value:.1f}" if scale > 1 else f"{value:,.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def main() -> None:
    """Parse the command line and run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True)
    runs = modes.add_parser("run", help="run what is missing")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--data-dir", type=Path)
    runs.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    runs.add_argument("--alphas", nargs="+", type=float, default=list(ALPHAS))
    runs.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    runs.add_argument("--jobs", type=int, default=1, help="runs at a time [default: 1]")
    runs.set_defaults(work=run)
    shown = modes.add_parser("table", help="print a file's table")
    shown.add_argument("file", type=Path, nargs="?", default=STORED)
    shown.set_defaults(work=lambda options: print(table(json.loads(options.file.read_text()))))
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
