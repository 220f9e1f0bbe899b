"""How long each consensus rule takes beside numpy's own work on the same votes.

`python -m benchmarks.consensus_speed [--devices 1000] [--samples 5000] [--classes 10] [--present 1.0] [--repeats 3]`

Mean and ERA are measured in passes over the votes (`votes.sum(axis=0)`), every other rule in calls of numpy's function
for its dominant step. The best of the repeats counts: other work on the machine
only ever adds.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedstill.consensus import RULES, Votes, geometric_median
from fedstill.consensus.reputation import CHECKS
from fedstill.soft_labels import Floats
from simulations.run_folder import commit


@dataclass(frozen=True)
class Yardstick:
    """What a rule is measured in."""

    name: str
    call: Callable[[], Any]


def votes_of(devices: int, samples: int, classes: int, present: float, seed: int = 0) -> Votes:
    """Return random votes; every device holds something of every class."""
    rng = np.random.default_rng(seed)
    there = rng.random((devices, samples)) < present
    rows = rng.standard_exponential((devices, samples, classes), dtype=np.float32)
    rows /= rows.sum(axis=2, keepdims=True)
    rows *= there[:, :, None]
    return Votes(
        probabilities=rows,
        present=there,
        certainty=rng.random((devices, samples), dtype=np.float32),
        class_priors=rng.dirichlet(np.full(classes, 0.3), devices).astype(np.float32),
        teacher=rng.dirichlet(np.full(classes, 0.3), samples).astype(np.float32),
        unsure=rng.random(samples) < 0.15,
    )


def yardsticks(votes: Votes) -> dict[str, Yardstick]:
    """Return what each rule is measured in."""
    rows = np.asarray(votes.probabilities)
    weights = votes.certainty
    centre = rows.mean(axis=0)
    one_pass = Yardstick("sum", lambda: rows.sum(axis=0))
    weighing = Yardstick("einsum", lambda: np.einsum("ds,dsc->sc", weights, rows))
    positive = np.maximum(rows, np.float32(1e-30))  # a logarithm of zero is slower, and none of ours
    logarithm = Yardstick("log", lambda: np.log(positive))
    return {
        "mean": one_pass,
        "era": one_pass,
        "enhanced-era": one_pass,
        "certainty": weighing,
        "entropy": logarithm,
        "prior-calibrated": Yardstick("multiply", lambda: rows * votes.class_priors[:, None, :]),
        "class-experts": logarithm,
        "density-experts": weighing,
        "selection": weighing,
        "selective-teacher": Yardstick("log of a part", lambda: np.log(positive[:, votes.unsure])),
        "median": Yardstick("median", lambda: np.median(rows, axis=0)),
        "trimmed-mean": Yardstick("sort", lambda: np.sort(rows, axis=0)),
        "geometric-median, 1 iteration": Yardstick("norm", lambda: np.linalg.norm(rows - centre, axis=2)),
        "reputable-experts": Yardstick("log, einsum", lambda: (np.log(positive), _compared(rows, centre, 1))),
        "reputable-experts, no teacher": Yardstick(
            f"log, {2 * CHECKS + 1} einsum", lambda: (np.log(positive), _compared(rows, centre, 2 * CHECKS + 1))
        ),
    }


def _compared(rows: Floats, reference: Floats, times: int) -> list[Any]:
    """Compare all votes with a reference: a check of reputations does so once, and weighs all votes once."""
    return [np.einsum("dsc,sc->dc", rows, reference) for _ in range(times)]


def best(call: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of the fastest of some calls."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure(votes: Votes, repeats: int) -> list[dict[str, Any]]:
    """Return a row per rule: its seconds, its yardstick's, and their ratio."""
    without = Votes(votes.probabilities, votes.present, votes.certainty, votes.class_priors)
    special: dict[str, Callable[[], Any]] = {
        "geometric-median, 1 iteration": lambda: geometric_median(votes, iterations=1),
        "reputable-experts, no teacher": lambda: RULES["reputable-experts"](without),
    }
    measured: dict[str, float] = {}
    rows = []
    for name, yardstick in yardsticks(votes).items():
        if yardstick.name not in measured:
            measured[yardstick.name] = best(yardstick.call, repeats)
        call = special[name] if name in special else lambda name=name: RULES[name](votes)
        seconds, unit = best(call, repeats), measured[yardstick.name]
        rows.append(
            {"rule": name, "seconds": seconds, "in": yardstick.name, "numpy_seconds": unit, "ratio": seconds / unit}
        )
    return rows


def main() -> None:
    """Measure all rules and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("devices", 1000), ("samples", 5000), ("classes", 10), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--present", type=float, default=1.0, help="share of the votes that is not abstained")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.devices, options.samples, options.classes, options.repeats) < 1 or not 0 <= options.present <= 1:
        parser.error("--devices, --samples, --classes and --repeats: at least 1; --present: 0 to 1")
    votes = votes_of(options.devices, options.samples, options.classes, options.present)
    rows = measure(votes, options.repeats)
    if options.json:
        print(json.dumps({"commit": commit(), **vars(options), "rules": rows}, indent=1))
        return
    size = np.asarray(votes.probabilities).nbytes / 1e6
    shape = f"{options.devices} devices, {options.samples} samples, {options.classes} classes ({size:.0f} MB)"
    print(f"{shape}, {100 * options.present:.0f} % present, best of {options.repeats}")
    print(f"commit {commit()}; {platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    print("\n| rule | seconds | numpy's | seconds | ratio |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['rule']} | {row['seconds']:.3f} | {row['in']} | {row['numpy_seconds']:.3f} | {row['ratio']:.1f} |"
        )


if __name__ == "__main__":
    main()
