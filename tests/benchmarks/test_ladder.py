"""The teacher of the comparison is the smallest that its task needs; goals are judged on ratios to it."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ladder import against, chosen_width, climb, parts, teacher
from fedstill.learning import build, parameters
from fedstill.tasks import load_task
from simulations.scenario import Scenario, load_scenario


def test_the_smallest_teacher_within_the_margin_of_the_best_is_chosen() -> None:
    validation = {4: 0.90, 8: 0.961, 16: 0.966, 32: 0.97, 64: 0.965}
    assert chosen_width(validation, 0.005) == 16
    assert chosen_width(validation, 0.01) == 8
    assert chosen_width(validation, 0.0) == 32


def test_goals_are_ten_times_smaller_eight_times_faster_and_97_percent_kept() -> None:
    guide = {"bytes": 1000, "latency_ms_p50": 0.8}
    found = against({"bytes": 100, "latency_ms_p50": 0.1, "test": 0.97}, guide, 1.0)
    assert all(found["meets"].values())
    found = against({"bytes": 101, "latency_ms_p50": 0.2, "test": 0.96}, guide, 1.0)
    assert not any(found["meets"].values())
    assert found["latency"] == pytest.approx(4)


def test_validation_samples_are_training_samples_that_no_teacher_learns(small: Scenario) -> None:
    train, validation, test = parts(small, 100, None, seed=0)
    assert (len(train.labels), len(validation.labels)) == (80, 20)
    arrays = load_task(small.task).load(None)
    assert (test.images == arrays.test_images).all()
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in validation.images)
    again, _, _ = parts(small, 100, None, seed=0)
    assert (again.images == train.images).all()
    assert not np.array_equal(parts(small, 100, None, seed=1)[0].labels, train.labels)


def test_teachers_grow_with_their_width_and_are_measured_on_validation_and_test(tmp_path: Path) -> None:
    scenario = load_scenario("digits")
    task = load_task(scenario.task)
    sizes = [parameters(build(teacher(width, task), task, seed=0)) for width in (4, 8, 16)]
    assert sizes == sorted(set(sizes))
    given = argparse.Namespace(train=60, data_dir=None, longer=0.2, out=tmp_path)
    found = climb(scenario, [4], given, seed=0)
    assert found == climb(scenario, [4], given, seed=0)
    assert set(found["4"]) == {"parameters", "validation", "test"}
