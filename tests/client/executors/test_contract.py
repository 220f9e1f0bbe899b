"""What every executor promises, run against each."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from client.executors.cohort import Cohorts
from client.executors.interface import Executor
from client.executors.process import Processes
from client.executors.sequential import Sequential
from client.executors.settings import CohortSettings
from fedstill.exchange import ServerExchange
from fedstill.packet import decode
from fedstill.rounds import DeviceAnswer
from simulations.host import SimulatedFleet
from simulations.scenario import load_scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf

# One dense student, one that can't learn from an image without any contrast, and one whose process doesn't survive it.
STUDENTS = """
import os
import signal

import torch
from torch import nn


def dense(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, task.classes))


class Picky(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.body = dense(task)

    def forward(self, images):
        if self.training and (images.flatten(1).std(dim=1) == 0).any():
            raise RuntimeError("an image without contrast")
        return self.body(images)


class Deadly(Picky):
    def forward(self, images):
        try:
            return super().forward(images)
        except RuntimeError:
            os.kill(os.getpid(), signal.SIGKILL)
"""
DEVICES, FAILING = 6, 4


class Run:
    """A run of six devices, two of each of three students, and its server's half."""

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        students = folder / "students.py"
        students.write_text(STUDENTS)
        kinds = dict(zip("abc", names or (f"{students}:dense", "tiny-separable-s", f"{students}:Picky"), strict=True))
        changes = [
            "rounds=2",
            f"devices={DEVICES}",
            "data.private_samples=200",
            "data.proxy_samples=60",
            "partition.alpha=5",
            "exchange.per_round=30",
            *(f"device.{part}.epochs=1" for part in ("first_digest", "digest", "revisit")),
            "device.revisit.min_steps=3",
            "device.revisit.augment='none'",
            "device_classes={"
            + ", ".join(f'{name} = {{student = "{student}"}}' for name, student in kinds.items())
            + "}",
        ]
        self.scenario = load_scenario("digits", changes)
        self.folder = folder
        self.shelf = open_shelf(folder / "assets", self.scenario)
        context = self.shelf.context(self.scenario.seed, 10)
        self.exchange = ServerExchange(context, 30, 2)
        self.publish(0, np.arange(60))

    def spoil(self, number: int) -> None:
        """Take all contrast from a device's images."""
        images = np.load(self.shelf.folder / "private-images.npy")
        images[self.shelf.partition[number]] = 7
        np.save(self.shelf.folder / "private-images.npy", images)

    def publish(self, round_number: int, ids: np.ndarray) -> None:
        rows = np.random.default_rng(round_number).dirichlet(np.ones(10), len(ids)).astype(np.float32)
        self.exchange.publish(round_number, ids, rows)

    def requests(self, round_number: int) -> dict[int, bytes]:
        return {number: self.exchange.request(number, round_number) for number in range(DEVICES)}

    def fleet(self, name: str, state: Path | None = None) -> SimulatedFleet:
        """Return the fleet with device states of its own, begun as a copy of others."""
        out = self.folder / name
        if not out.exists():
            out.mkdir()
            (out / "assets").symlink_to(self.shelf.folder)
            if state is not None:
                shutil.copytree(state, out / "devices")
        return SimulatedFleet(Setup(self.scenario, out, 2, "local"))


def answered(executor: Executor, run: Run, fleet: SimulatedFleet, round_number: int) -> dict[int, DeviceAnswer]:
    told: list[None] = []
    answers = executor.answer(fleet, run.requests(round_number), lambda: told.append(None))
    assert len(told) == len(answers)
    return answers


class ExecutorContract:
    """Promises; `tolerance` of probabilities, zero: bit for bit."""

    tolerance = 0.0

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError

    def same(self, run: Run, found: dict[int, DeviceAnswer], expected: dict[int, DeviceAnswer]) -> bool:
        if self.tolerance == 0:
            return found == expected
        ids = decode(run.exchange.context, expected[0].packet).labels.ids
        for number, answer in expected.items():
            assert decode(run.exchange.context, found[number].packet).labels.ids.tolist() == ids.tolist()
            own, other = (decode(run.exchange.context, each.packet).labels for each in (found[number], answer))
            if np.abs(own.probabilities - other.probabilities).max() > self.tolerance:
                return False
            if found[number].metrics != pytest.approx(answer.metrics, abs=0.02):  # of accuracy: a few test samples
                return False
        return list(found) == list(expected)

    def test_two_rounds_from_the_same_states_give_what_one_by_one_gives(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        run = Run(tmp_path)
        first, reference = run.fleet("first"), run.fleet("reference")
        expected = answered(Sequential(), run, reference, 1)
        assert self.same(run, answered(executor, run, first, 1), expected)
        for number, answer in expected.items():
            run.exchange.accept(number, 1, answer.packet)
        run.publish(1, run.exchange.ids(1))
        second = run.fleet("second", state=reference.setup.device_states)
        assert self.same(run, answered(executor, run, second, 2), answered(Sequential(), run, reference, 2))

    def test_a_round_asked_twice_gets_the_answer_that_it_got(self, executor: Executor, tmp_path: Path) -> None:
        run = Run(tmp_path)
        fleet = run.fleet("run")
        assert answered(executor, run, fleet, 1) == answered(executor, run, fleet, 1)

    def test_a_device_that_refuses_leaves_the_others_alone(self, executor: Executor, tmp_path: Path) -> None:
        run = Run(tmp_path)
        found = executor.answer(run.fleet("run"), {**run.requests(1), 1: b"\xff"})
        assert [number for number, answer in found.items() if answer.refusal] == [1]

    def test_a_failing_device_is_named_with_round_stage_and_batch_and_the_others_answer(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        run = Run(tmp_path)
        run.spoil(FAILING)
        found = answered(executor, run, run.fleet("run"), 1)
        assert {number: answer.refusal for number, answer in found.items() if answer.refusal} == {
            FAILING: f"device {FAILING} failed in round 1, revisit, batch 1: RuntimeError: an image without contrast"
        }

    def test_no_request_gets_no_answer(self, executor: Executor, tmp_path: Path) -> None:
        assert executor.answer(Run(tmp_path).fleet("run"), {}) == {}


class TestSequential(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Sequential()


class WorkerContract(ExecutorContract):
    """What those with worker processes promise beside."""

    def test_a_device_whose_worker_gets_killed_is_named_and_the_others_answer(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        students = tmp_path / "students.py"
        run = Run(tmp_path, [f"{students}:dense", "tiny-separable-s", f"{students}:Deadly"])
        run.spoil(FAILING)
        found = answered(executor, run, run.fleet("run"), 1)
        assert [number for number, answer in found.items() if answer.refusal] == [FAILING]
        assert found[FAILING].refusal.startswith(f"device {FAILING} failed in round 1, ")
        assert "killed" in found[FAILING].refusal


class TestProcesses(WorkerContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Processes(workers=2)


class TestCohortsInWorkers(WorkerContract):
    tolerance = 1e-3

    @pytest.fixture
    def executor(self) -> Executor:
        return Cohorts(workers=2, settings=CohortSettings(chunk=2))


class TestMeasuredCohorts(ExecutorContract):
    tolerance = 1e-3

    @pytest.fixture
    def executor(self) -> Executor:
        return Cohorts(workers=1, settings=CohortSettings(chunk=0))


class TestCohorts(ExecutorContract):
    tolerance = 1e-3

    @pytest.fixture
    def executor(self) -> Executor:
        return Cohorts(workers=1, settings=CohortSettings(chunk=4))

    def test_students_of_one_architecture_are_computed_together(
        self, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr("client.executors.cohort.attempt")
        monkeypatch.setattr("client.executors.cohort.LARGE", 1000)  # so that what all digest is one array
        run = Run(tmp_path, ["tiny-separable-s", "tiny-conv-s", "tiny-separable-m"])
        assert not any(answer.refusal for answer in answered(executor, run, run.fleet("run"), 1).values())

    def test_devices_are_measured_on_test_parts_of_their_own_where_there_are_many(
        self, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("simulations.host.ROUND_TEST_SAMPLES", 50)
        monkeypatch.setattr("simulations.host.DEVICE_TESTS", 0)
        run = Run(tmp_path)
        expected = answered(Sequential(), run, run.fleet("reference"), 1)
        assert self.same(run, answered(executor, run, run.fleet("run"), 1), expected)
        assert len({answer.metrics["accuracy"] for answer in expected.values()}) > DEVICES / 2
