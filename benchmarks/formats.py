"""Latency and size of each numeric format for dense and transformer students: `python -m benchmarks.formats [--json]`.

Students have random weights: neither latency nor size depends on them, and nothing is said of accuracy. Formats take
turns, and each is told by its lowest median of several turns, so that a busy machine blurs the comparison less; figures
to publish still need a quiet one.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fedstill.errors import ExportError
from fedstill.learning import build
from fedstill.models import architecture
from fedstill.tasks import Images, Task
from fedstill.text import encode
from fedstill.workers import prepare_torch
from server.release.export import export
from server.release.formats import FORMATS
from server.release.runtime import latency_ms
from simulations.sources import MNIST, SST2

TURNS = 7
WORDS = ("a", "film", "of", "note", "that", "says", "too", "little", "and", "takes", "long")


def dense(task: Task, widths: tuple[int, ...]) -> nn.Module:
    """Return a student of linear layers."""
    sizes = (int(np.prod(task.input_shape)), *widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], task.classes))


STUDENTS: dict[str, tuple[Callable[[Task], nn.Module], Task]] = {
    "dense 784-1024-512-10": (partial(dense, widths=(1024, 512)), MNIST),
    "text-transformer-s": (architecture("text-transformer-s"), SST2),
    "text-transformer-m": (architecture("text-transformer-m"), SST2),
    "text-transformer-l": (architecture("text-transformer-l"), SST2),
}


def samples(task: Task, count: int) -> Images:
    """Return inputs of a task: sentences of made-up reviews, or random pixels."""
    rng = np.random.default_rng(0)
    if task is SST2:
        return encode([" ".join(rng.choice(WORDS, 19)) for _ in range(count)], task.input_shape[2])
    return rng.integers(0, 256, (count, *task.input_shape), dtype=np.uint8)


def measured(make: Callable[[Task], nn.Module], task: Task) -> dict[str, dict[str, float]]:
    """Return bytes, milliseconds of one sample on one thread, and their ratio to float32, of each format that suits."""
    inputs, contents = samples(task, 50), {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.onnx"
        export(build(make, task, seed=0), task, source)
        for name, kind in FORMATS.items():
            target = Path(folder) / f"{name}.onnx"
            try:
                kind.write(source, target, task, inputs)
            except ExportError:
                continue
            contents[name] = target.read_bytes()
    turns = [{name: latency_ms(content, task, inputs[:1]) for name, content in contents.items()} for _ in range(TURNS)]
    best = {name: min(turn[name] for turn in turns) for name in contents}
    return {
        name: {"bytes": len(contents[name]), "ms": best[name], "ratio": best[name] / best["float32"]} for name in best
    }


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prepare_torch()
    found: dict[str, Any] = {name: measured(make, task) for name, (make, task) in STUDENTS.items()}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| student | format | kB | ms | of float32's time |\n| --- | --- | --- | --- | --- |")
    for student, rows in found.items():
        for name, row in rows.items():
            print(f"| {student} | {name} | {row['bytes'] / 1e3:,.0f} | {row['ms']:.3f} | {row['ratio']:.2f} |")


if __name__ == "__main__":
    main()
