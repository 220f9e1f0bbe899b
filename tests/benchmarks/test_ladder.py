"""The teacher of the comparison is the smallest that its task needs; goals are judged on ratios to it."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ladder import CONFIG, against, chosen_width, claim, climb, main, parts, teacher
from fedstill.errors import RunFolderError
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


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--train", "30"], "train"),
        (["--widths", "4,8"], "widths"),
        (["--longer", "2"], "longer"),
        (["--seconds", "1"], "seconds"),
        (["--scenario", "mnist"], "scenario"),
        (["--data-dir", "data"], "data_dir"),
    ],
)
def test_parts_of_another_configuration_are_refused_in_one_line(
    options: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = argparse.Namespace(train=60, data_dir=None, longer=0.2, seconds=0.1, out=tmp_path)
    claim(load_scenario("digits"), [4], given)
    claim(load_scenario("digits"), [4], given)  # the same one goes on
    same = ["--widths", "4", "--train", "60", "--longer", "0.2", "--seconds", "0.1"]
    monkeypatch.setattr(sys, "argv", ["ladder", str(tmp_path), *same, *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert f"holds parts of another configuration ({key}): choose another OUT" in capsys.readouterr().err


def test_parts_of_an_unknown_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "teachers-0.json").write_text("{}")
    given = argparse.Namespace(train=60, data_dir=None, longer=0.2, seconds=0.1, out=tmp_path)
    with pytest.raises(RunFolderError, match="unknown configuration"):
        claim(load_scenario("digits"), [4], given)
    assert not (tmp_path / CONFIG).exists()
