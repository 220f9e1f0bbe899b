from pathlib import Path

import numpy as np
import pytest
import tomli_w

from benchmarks.prune import Case, check_same, table, variants
from fedstill.errors import ConfigError
from fedstill.learning import build
from fedstill.models.shapes import Shape
from fedstill.settings import FitSettings
from fedstill.soft_labels import Floats
from fedstill.tasks import load_task
from server import students
from server.compress.learn import Candidate, Material
from server.compress.prune import flops
from simulations.compress.plan import PLAN
from simulations.sources import load_digits

TASK_NAME = "simulations.sources:DIGITS"


def test_every_way_but_the_unpruned_ones_leaves_half_of_the_operations() -> None:
    task, arrays = load_task(TASK_NAME), load_digits(None)
    labels: Floats = np.full((60, task.classes), 0.1, dtype=np.float32)
    images = arrays.train_images[:60]
    how = FitSettings(epochs=0, min_steps=8, batch=16, learning_rate=0.05).of(60)
    material = Material(TASK_NAME, 0, images, labels, None, (images, labels), images, how)
    shape = Shape("pooled-conv", ((8,), (16,)))
    candidate = Candidate(shape, 0.5, "float32", 1.0, 1.0)
    state = students.initial(TASK_NAME, str(shape), 0)
    whole = flops(build(shape.build, task, 0), task)
    left = {
        way: flops(build(found.build, task, 0), task) / whole
        for way, found, _ in variants(Case("mcu", candidate, material, state))
    }
    assert len(left) == 6
    assert all((kept == 1) == way.startswith("unpruned") for way, kept in left.items())
    assert all(kept <= 0.5 for way, kept in left.items() if not way.startswith("unpruned"))


def test_the_table_has_means_with_deviations_by_way_and_class() -> None:
    rows = [
        {"class": "mcu", "way": "a", "accuracy": 0.9},
        {"class": "mcu", "way": "a", "accuracy": 0.94},
        {"class": "pi4", "way": "b", "accuracy": 0.5},
    ]
    assert table(rows).splitlines()[2:] == ["| a | 92.0 ± 2.8 | — |", "| b | — | 50.0 |"]


def test_a_search_of_another_run_or_of_other_trials_is_not_told_as_this_one(tmp_path: Path) -> None:
    plan = {
        "run": str(tmp_path / "digits" / "seed-0"),
        "device_class": "mcu",
        "student": "tiny-separable-s",
        "budget": {},
        "trials": 12,
        "steps": 60,
        "formats": ["static-int8"],
        "latency": {"source": "this machine", "scale": 1.0},
    }
    (tmp_path / PLAN).write_text(tomli_w.dumps(plan))
    check_same(tmp_path, tmp_path / "digits" / "seed-0", 12)
    for run, trials in ((tmp_path / "mnist" / "seed-0", 12), (tmp_path / "digits" / "seed-0", 40)):
        with pytest.raises(ConfigError, match=r"holds a search of 12 students of .*digits/seed-0; give another --out"):
            check_same(tmp_path, run, trials)
