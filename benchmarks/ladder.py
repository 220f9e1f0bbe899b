"""The teacher ladder: the smallest teacher that its task needs, and what students keep of it for how much less.

`python -m benchmarks.ladder OUT [--scenario digits] [--seeds 0,1,2] [--margin 0.005] [--train N] [--json]`

Teachers are networks of one family whose width doubles. The teacher of the comparison is the smallest whose accuracy on
held-out validation samples (a fifth of the training set), averaged over seeds, is within `--margin` of the best: a
larger one would only make its students look smaller. The test set takes no part in the choice. Students are those of
the scenario's device classes, distilled from that teacher on the same training samples (Hinton, Vinyals and Dean 2015,
arXiv 1503.02531: temperature 2, alpha 0.5), exported and quantized as for a release. All of them train for
`central.fit` of the scenario times `--longer`.

Sizes are those of ONNX files; latency is the median of one sample on one thread, measured as `fedstill evaluate` does,
with the files of the first seed; accuracies are means over seeds. Goals for a student against its teacher: 10 times
smaller, 8 times faster, 97 % of the accuracy kept. `ladder.json` is written to OUT; a seed that is there already is not
computed again, and an OUT with parts of another configuration is refused.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from client import probe
from client.data import Labelled
from client.evaluate.measure import Effort, Model, measure
from fedstill.errors import RunFolderError
from fedstill.files import write_json
from fedstill.learning import accuracy, build, fit, logits, parameters
from fedstill.losses import hinton
from fedstill.models import architecture
from fedstill.models.convnets import PooledNet, convolution
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE
from fedstill.rng import stream, torch_seed
from fedstill.tasks import Task, load_task
from fedstill.workers import prepare_torch
from server.release import runtime
from server.release.export import export, normalization
from server.release.quantize import quantize
from simulations.run_folder import commit
from simulations.scenario import Scenario, dump, load_scenario

Architecture = Callable[[Task], nn.Module]

VALIDATION = 0.2  # of the training set
TEMPERATURE, ALPHA = 2.0, 0.5
CALIBRATION, PROBES = 200, 16  # samples
GOALS = {"size": 10.0, "latency": 8.0, "accuracy_kept": 0.97}
CONFIG, RESULT = "config.json", "ladder.json"


def teacher(width: int, task: Task) -> Architecture:
    """Return the teacher of a width: two stages of convolutions, three for images that are larger."""
    one, two, four = (width, width), (2 * width, 2 * width), (4 * width, 4 * width)
    stages = (one, two) if task.input_shape[1] < 16 else ((width,), two, four)
    return partial(PooledNet, stages=stages, block=convolution)


def parts(scenario: Scenario, train: int, data_dir: Path | None, seed: int) -> tuple[Labelled, Labelled, Labelled]:
    """Return training, validation and test samples; the first two are drawn from the training set."""
    arrays = load_task(scenario.task).load(data_dir)
    order = stream(seed, "ladder").permutation(len(arrays.train_labels))[: train or None]
    cut = round(VALIDATION * len(order))

    def rows(chosen: np.ndarray) -> Labelled:
        return Labelled(np.array(arrays.train_images[chosen]), arrays.train_labels[chosen].astype(np.int64))

    test = Labelled(np.array(arrays.test_images), arrays.test_labels.astype(np.int64))
    return rows(order[cut:]), rows(order[:cut]), test


def chosen_width(validation: Mapping[int, float], margin: float) -> int:
    """Return the smallest width whose accuracy is within `margin` of the best.

    Args:
        validation: mean accuracy by width.
        margin: a fraction.
    """
    best = max(validation.values())
    return min(width for width, found in validation.items() if found >= best - margin)


def trained(
    what: Architecture,
    name: str,
    scenario: Scenario,
    train: Labelled,
    longer: float,
    seed: int,
    guide: nn.Module | None,
) -> nn.Module:
    """Return a network that learned the labels, and where there is a guide, its soft labels about the same images."""
    task = load_task(scenario.task)
    settings = scenario.central.fit
    how = settings.model_copy(update={"epochs": settings.epochs * longer}).of(len(train.labels))
    model = build(what, task, torch_seed(seed, "ladder", name))
    labels = torch.from_numpy(train.labels)
    if guide is None:
        fit(model, train.images, labels, task, how, F.cross_entropy, torch_seed(seed, "fit", name))
        return model
    targets = torch.cat([logits(guide, train.images, task), labels[:, None].float()], dim=1)

    def loss(found: Tensor, wanted: Tensor) -> Tensor:
        return hinton(found, wanted[:, :-1], wanted[:, -1].long(), TEMPERATURE, ALPHA)

    # The guide's answers are about images as they are.
    plain = settings.model_copy(update={"epochs": settings.epochs * longer, "augment": "none"}).of(len(labels))
    fit(model, train.images, targets, task, plain, loss, torch_seed(seed, "fit", name))
    return model


def climb(scenario: Scenario, widths: Sequence[int], given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train the teachers of all widths with a seed, and return their accuracies; their states lie beside."""
    task = load_task(scenario.task)
    train, validation, test = parts(scenario, given.train, given.data_dir, seed)
    found: dict[str, Any] = {}
    for width in widths:
        model = trained(teacher(width, task), f"teacher-{width}", scenario, train, given.longer, seed, None)
        torch.save(model.state_dict(), given.out / f"teacher-{width}.{seed}.pt")
        found[str(width)] = {
            "parameters": parameters(model),
            "validation": accuracy(model, validation.images, validation.labels, task),
            "test": accuracy(model, test.images, test.labels, task),
        }
    return found


def descend(scenario: Scenario, width: int, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Distil the students of all classes from the teacher of a width with a seed; their files lie beside."""
    task = load_task(scenario.task)
    train, _, test = parts(scenario, given.train, given.data_dir, seed)
    guide = build(teacher(width, task), task, seed=0)
    guide.load_state_dict(torch.load(given.out / f"teacher-{width}.{seed}.pt", weights_only=True))
    found = {}
    for kind in scenario.device_classes.values():
        model = trained(architecture(kind.student), kind.student, scenario, train, given.longer, seed, guide)
        folder: Path = given.out / f"{kind.student}.{seed}"
        folder.mkdir(exist_ok=True)
        export(model, task, folder / FLOAT_FILE)
        quantize(folder / FLOAT_FILE, folder / INT8_FILE, task, train.images[:CALIBRATION])
        found[kind.student] = {
            "parameters": parameters(model),
            **{name: _right(folder / name, task, test) for name in (FLOAT_FILE, INT8_FILE)},
        }
    return found


def _right(path: Path, task: Task, test: Labelled) -> float:
    return float((runtime.logits(path.read_bytes(), task, test.images).argmax(axis=1) == test.labels).mean())


def cost(path: Path, task: Task, images: np.ndarray, seconds: float) -> dict[str, Any]:
    """Return bytes of a file, milliseconds of one sample, and megabytes that come with it in a process."""
    how = normalization(task)
    found, _ = measure(Model(path, how, task.classes, images), Effort(seconds), None, None)
    latency = found.latency_ms["1"]
    return {
        "bytes": found.bytes,
        "latency_ms_p50": latency.p50,
        "latency_ms_p99": latency.p99,
        "model_rss_bytes": found.model_rss_bytes,
        "onnxruntime": found.onnxruntime,
    }


def claim(scenario: Scenario, widths: Sequence[int], given: argparse.Namespace) -> None:
    """Make sure that the parts in the folder are of this configuration, which is kept beside them.

    Seeds and margin are not of it: the names of parts tell seeds, and the margin only chooses among parts.

    Raises:
        RunFolderError: they are of another.
    """
    wanted = {
        "scenario": dump(scenario),
        "widths": list(widths),
        "train": given.train,
        "longer": given.longer,
        "seconds": given.seconds,
        "data_dir": None if given.data_dir is None else str(given.data_dir.resolve()),
    }
    path: Path = given.out / CONFIG
    if not path.exists():
        if any(given.out.iterdir()):
            raise RunFolderError(f"{given.out} holds files of an unknown configuration: choose another OUT")
        write_json(path, wanted)
    held = json.loads(path.read_text())
    if other := [key for key, value in wanted.items() if held.get(key) != value]:
        raise RunFolderError(
            f"{given.out} holds parts of another configuration ({', '.join(other)}): choose another OUT"
        )


def kept(folder: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file of `folder` holds, computed if it is not there yet."""
    path = folder / f"{name}.json"
    if not path.exists():
        write_json(path, work())
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def against(student: Mapping[str, Any], teacher_cost: Mapping[str, Any], teacher_test: float) -> dict[str, Any]:
    """Return a student's ratios to its teacher, and which goals they meet.

    Args:
        student: its `bytes`, `latency_ms_p50` and mean test accuracy `test`.
        teacher_cost: `bytes` and `latency_ms_p50` of the teacher.
        teacher_test: its mean accuracy on the test set.
    """
    ratios = {
        "size": teacher_cost["bytes"] / student["bytes"],
        "latency": teacher_cost["latency_ms_p50"] / student["latency_ms_p50"],
        "accuracy_kept": student["test"] / teacher_test,
    }
    return {**ratios, "meets": {key: ratios[key] >= goal for key, goal in GOALS.items()}}


def run(scenario: Scenario, widths: Sequence[int], seeds: Sequence[int], given: argparse.Namespace) -> dict[str, Any]:
    """Climb the ladder, choose the teacher, distil the students and compare."""
    task, out = load_task(scenario.task), given.out
    climbs = [kept(out, f"teachers-{seed}", partial(climb, scenario, widths, given, seed)) for seed in seeds]
    means = {
        width: {key: _spread([found[str(width)][key] for found in climbs]) for key in ("validation", "test")}
        for width in widths
    }
    width = chosen_width({width: own["validation"]["mean"] for width, own in means.items()}, given.margin)
    students = [kept(out, f"students-{width}-{seed}", partial(descend, scenario, width, given, seed)) for seed in seeds]
    probes = parts(scenario, given.train, given.data_dir, seeds[0])[2].images[:PROBES]

    def teachers_cost(width: int) -> dict[str, Any]:
        model = build(teacher(width, task), task, seed=0)
        model.load_state_dict(torch.load(out / f"teacher-{width}.{seeds[0]}.pt", weights_only=True))
        path = out / f"teacher-{width}.onnx"
        export(model, task, path)
        return cost(path, task, probes, given.seconds)

    rungs = [
        {
            "width": width,
            "parameters": climbs[0][str(width)]["parameters"],
            **own,
            **kept(out, f"cost-teacher-{width}-{seeds[0]}", partial(teachers_cost, width)),
        }
        for width, own in means.items()
    ]
    top = next(rung for rung in rungs if rung["width"] == width)
    rows = []
    for name, own in students[0].items():
        for file in (FLOAT_FILE, INT8_FILE):
            path = out / f"{name}.{seeds[0]}" / file
            spent = kept(out, f"cost-{name}-{file}-{seeds[0]}", partial(cost, path, task, probes, given.seconds))
            test = _spread([found[name][file] for found in students])
            ratios = against({**spent, "test": test["mean"]}, top, top["test"]["mean"])
            rows.append(
                {"student": name, "file": file, "parameters": own["parameters"], "test": test, **spent, **ratios}
            )
    return {"teachers": rungs, "chosen_width": width, "students": rows}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the ladder, and the students against the chosen teacher."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(
        ("", "parameters", "kB", "p50 ms", "validation %", "test %", "size", "latency", "kept %")
    ):
        table.add_column(title, justify="right" if place else "left", no_wrap=True)

    def percent(own: Mapping[str, float]) -> str:
        return f"{100 * own['mean']:.1f} ± {100 * own['std']:.1f}"

    def costs(row: Mapping[str, Any]) -> list[str]:
        return [f"{row['parameters']:,}", f"{row['bytes'] / 1e3:.1f}", f"{row['latency_ms_p50']:.4f}"]

    for rung in found["teachers"]:
        mark = " (chosen)" if rung["width"] == found["chosen_width"] else ""
        table.add_row(
            f"teacher {rung['width']}{mark}", *costs(rung), percent(rung["validation"]), percent(rung["test"])
        )
    for row in found["students"]:
        ratios = [f"{row[key]:.1f}x{'' if row['meets'][key] else ' missed'}" for key in ("size", "latency")] + [
            f"{100 * row['accuracy_kept']:.1f}{'' if row['meets']['accuracy_kept'] else ' missed'}"
        ]
        table.add_row(f"{row['student']} {row['file']}", *costs(row), "", percent(row["test"]), *ratios)
    console.print(table)
    good = [f"{row['student']} {row['file']}" for row in found["students"] if all(row["meets"].values())]
    console.print(f"all three goals (10x smaller, 8x faster, 97 % kept): {', '.join(good) or 'no student meets them'}")


def main() -> None:
    """Run what is missing, and print the ladder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenario", default="digits")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--widths", default="4,8,16,32,64")
    parser.add_argument("--margin", type=float, default=0.005, help="of accuracy, a fraction")
    parser.add_argument("--train", type=int, default=0, help="samples of the training set; 0: all")
    parser.add_argument("--longer", type=float, default=1.0, help="times the epochs of central.fit")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    prepare_torch()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    seeds, widths = ([int(part) for part in text.split(",")] for text in (given.seeds, given.widths))
    config = {
        key: getattr(given, key) for key in ("scenario", "seeds", "widths", "margin", "train", "longer", "seconds")
    }
    scenario = load_scenario(given.scenario)
    try:
        claim(scenario, widths, given)
    except RunFolderError as error:
        parser.error(str(error))
    found = run(scenario, widths, seeds, given)
    machine = probe.look()
    head = {"config": config, "goals": GOALS, "commit": commit(), "machine": machine.model, "cores": machine.cores}
    write_json(given.out / RESULT, {**head, **found})
    if given.json:
        print(json.dumps({**head, **found}))
    else:
        show(found, Console(width=140))


if __name__ == "__main__":
    main()
