"""What a run is compared with, and how much of it a scenario asks for."""

from pathlib import Path

import numpy as np
import pytest

from fedstill.rng import torch_seed
from server import students
from simulations import host
from simulations.host import device_data
from simulations.job import plan_of
from simulations.references import alone, references
from simulations.scenario import Scenario, load_scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf


def test_all_devices_of_a_small_fleet_train_alone() -> None:
    assert alone(load_scenario("digits")) == list(range(20))


def test_of_a_large_fleet_some_of_each_class_do_drawn_from_the_seed() -> None:
    scenario = load_scenario("mnist", ["devices=4000"])
    chosen = alone(scenario)
    classes = scenario.classes_of_devices()
    assert [classes[number] for number in chosen] == [name for name in scenario.device_classes for _ in range(100)]
    assert chosen == sorted(set(chosen)) == alone(scenario) != alone(load_scenario("mnist", ["devices=4000", "seed=1"]))
    assert {number % 10 for number in chosen} == set(range(10))  # `one-class` deals its classes so


def test_references_that_are_not_wanted_are_not_computed(small: Scenario, tmp_path: Path) -> None:
    wanted = small.references.model_copy(update={"local_only": 0, "teacher_only": False, "central": False})
    scenario = small.model_copy(update={"references": wanted})
    setup = Setup(scenario, tmp_path, workers=1, engine="local")
    open_shelf(setup.assets, scenario)
    assert scenario.teacher is not None
    initial = students.initial(scenario.task, scenario.teacher.architecture, 0)
    assert list(references(setup, plan_of(setup), initial, tmp_path / "references")) == [(0, {})]


def test_a_device_repeats_alone_the_rounds_in_which_it_learned(
    small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = small.references.model_copy(update={"teacher_only": False, "central": False})
    scenario = small.model_copy(update={"references": wanted})
    setup = Setup(scenario, tmp_path, workers=1, engine="local")
    open_shelf(setup.assets, scenario)
    trained: dict[int, list[int]] = {number: [] for number in range(scenario.devices)}

    def revisit(model: object, data: object, task: object, settings: object, seed: int) -> None:
        number, one = next(key for key, known in seeds.items() if known == seed)
        trained[number].append(one)

    seeds = {
        (number, one): torch_seed(scenario.seed, "revisit", number, one)
        for number in range(scenario.devices)
        for one in (1, 2)
    }
    monkeypatch.setattr("simulations.references.revisit", revisit)
    took_part: dict[int, tuple[int, ...]] = {0: (1, 2), 1: (2,), 2: (), 3: (1,)}
    *_, (left, done) = references(setup, plan_of(setup), {}, tmp_path / "references", took_part.__getitem__)
    assert left == 0
    assert len(done) == scenario.devices
    assert {number: tuple(found) for number, found in trained.items()} == took_part


def test_devices_of_a_large_fleet_are_measured_on_a_part_of_the_test_set(
    small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(tmp_path / "assets", small)
    whole = device_data(shelf, 0)
    assert len(whole.test_images) == len(whole.test_labels) == len(shelf.test.labels)
    monkeypatch.setattr(host, "ROUND_TEST_SAMPLES", 10)
    monkeypatch.setattr(host, "DEVICE_TESTS", 20 * small.devices)
    parts = [device_data(shelf, number) for number in range(small.devices)]
    assert {len(part.test_images) for part in parts} == {len(part.test_labels) for part in parts} == {20}
    labels = np.concatenate([part.test_labels for part in parts])
    assert np.array_equal(labels, np.resize(shelf.test.labels, len(labels)))
    monkeypatch.setattr(host, "DEVICE_TESTS", small.devices)
    assert len(device_data(shelf, 0).test_labels) == 10
