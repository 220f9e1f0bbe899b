"""Pruning joined with distillation, and searched students, against the hand-made students of finished runs.

`python -m benchmarks.prune joint RUN... [--seeds 0,1,2] [--keep 0.5] [--classes A B] [--json FILE]` distils, for each
device class, the hand-made student for as many steps as the run's own (S), and takes half of its operations away in
several ways:

* unpruned, and unpruned with 2 S steps
* joint, by Taylor and by L1: S steps, then S more while the channels go in four parts
* at once: S steps, all channels at once, S more
* from scratch: the shape that `joint` left, 2 S steps from fresh weights

`python -m benchmarks.prune search RUN... --out FOLDER [--trials 40] [--classes A B] [--json FILE]` runs `fedstill
compress` for each class of each run (finished searches are not repeated), and compares the chosen student with the
hand-made one.

RUN is the folder of a run that `fedstill simulate` finished, one for each seed; with `--seeds` the students of one run
learn the same labels from other initial weights and orders. Accuracies are those of the test set, in float for `joint`,
of the file that is released for `search`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.tables import spread
from fedstill.errors import ConfigError
from fedstill.files import write_json
from fedstill.learning import State, accuracy, build, restored
from fedstill.models.shapes import Shape, shape_of
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server import students
from server.compress.learn import PHASES, Candidate, Material, distil, pruned
from server.compress.prune import Importance, flops
from simulations.compress.commands import compress
from simulations.compress.finish import JSON
from simulations.compress.finished import Finished, open_run
from simulations.compress.plan import read_plan
from simulations.run_folder import commit


@dataclass(frozen=True)
class Case:
    """A class's hand-made student that has learned for S steps.

    Attributes:
        name: device class.
        candidate: the student; its sparsity is what pruning is to take away.
        material: what it learns from.
        state: its state after S steps.
    """

    name: str
    candidate: Candidate
    material: Material
    state: State


def cases(run: Finished, seed: int, keep: float, classes: Sequence[str]) -> Iterator[Case]:
    """Yield the students of a run's classes, distilled for S steps; architectures of no family are left out."""
    for name in classes or run.scenario.device_classes:
        shape = shape_of(run.scenario.device_classes[name].student)
        if shape is None:
            continue
        candidate = Candidate(shape, 1 - keep, "float32", run.temperature, 1.0)
        material = replace(run.everything(run.steps), seed=seed)
        fresh = students.initial(material.task, str(shape), seed)
        yield Case(name, candidate, material, distil(shape, fresh, candidate, material, material.how.steps, 0))


def variants(case: Case) -> Iterator[tuple[str, Shape, State]]:
    """Yield each way by its name, with what it leaves."""
    candidate, material = case.candidate, case.material
    shape, steps = candidate.shape, material.how.steps
    fresh = partial(students.initial, material.task, seed=material.seed)
    yield "unpruned", shape, case.state
    longer = distil(shape, fresh(str(shape)), candidate, material, 2 * steps, 0)
    yield "unpruned, 2 S steps", shape, longer
    ways: dict[str, tuple[Importance, int]] = {
        "joint, taylor": ("taylor", PHASES),
        "joint, l1": ("l1", PHASES),
        "at once, taylor": ("taylor", 1),
    }
    left = shape
    for name, (importance, phases) in ways.items():
        found, state = pruned(shape, case.state, candidate, material, steps, importance, phases)
        left = found if name == "joint, taylor" else left
        yield name, found, state
    yield "from scratch", left, distil(left, fresh(str(left)), candidate, material, 2 * steps, 0)


def joint(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each run, seed, class and way."""
    rows = []
    for run in map(open_run, options.runs):
        task = load_task(run.scenario.task)
        for seed in options.seeds or [run.scenario.seed]:
            for case in cases(run, seed, options.keep, options.classes):
                whole = flops(build(case.candidate.shape.build, task, seed=0), task)
                for way, shape, state in variants(case):
                    model = restored(shape.build, task, state)
                    row = {
                        "class": case.name,
                        "way": way,
                        "run_seed": run.scenario.seed,
                        "seed": seed,
                        "student": str(shape),
                        "steps": case.material.how.steps,
                        "flops_kept": flops(model, task) / whole,
                        "accuracy": accuracy(model, *run.test, task),
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def check_same(out: Path, run: Path, trials: int) -> None:
    """Check that the search in a folder is of this run, and of so many students.

    Raises:
        ConfigError: it is another one, which would be told as this.
    """
    plan = read_plan(out)
    if (Path(plan.run), plan.trials) != (run.resolve(), trials):
        raise ConfigError(f"{out}: holds a search of {plan.trials} students of {plan.run}; give another --out")


def search(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each run and class: the hand-made and the chosen student."""
    rows = []
    for run in map(open_run, options.runs):
        for name in options.classes or run.scenario.device_classes:
            out = options.out / f"{run.folder.name}-{name}"
            if out.exists():
                check_same(out, run.folder, options.trials)
            if not (out / JSON).exists():
                if out.exists():
                    compress(out=out, resume=True)
                else:
                    compress(name, run=run.folder, out=out, trials=options.trials)
            found = json.loads((out / JSON).read_text())
            keys = ("student", "format", "test_accuracy", "accuracy", "bytes", "memory_bytes", "latency_ms", "flops")
            for way in ("hand_made", "chosen"):
                figures = {key: found[way][key] for key in keys}
                row = {"class": name, "way": way, "seed": found["seed"], "trials": found["trials"], **figures}
                rows.append({**row, "accuracy": row["test_accuracy"], "validation_accuracy": row["accuracy"]})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return mean and sample deviation of the accuracy in percent, by way and class, as Markdown."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        found[row["way"], row["class"]].append(100 * row["accuracy"])
    classes = list(dict.fromkeys(row["class"] for row in rows))
    lines = [["", *classes], ["---"] * (len(classes) + 1)]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = [found[way, name] for name in classes]
        lines.append([way, *(spread(values, digits=1) for values in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print a table, and write the rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True)
    for name, work in (("joint", joint), ("search", search)):
        mode = modes.add_parser(name)
        mode.set_defaults(work=work)
        mode.add_argument("runs", nargs="+", type=Path)
        mode.add_argument("--json", type=Path)
        mode.add_argument("--classes", nargs="+")
        if name == "joint":
            mode.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")])
            mode.add_argument("--keep", type=float, default=0.5)
        else:
            mode.add_argument("--out", type=Path, required=True)
            mode.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    prepare_torch()
    rows = options.work(options)
    print(table(rows))
    if options.json:
        write_json(options.json, {"commit": commit(), "rows": rows})


if __name__ == "__main__":
    main()
