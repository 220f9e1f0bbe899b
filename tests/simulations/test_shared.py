"""Runs share a reference exactly if they would compute the same."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from fedstill.learning import State
from server import students
from server.federation import Plan
from simulations import references as module
from simulations.baselines.alone import run_local_only
from simulations.job import plan_of
from simulations.methods import load_method
from simulations.progress import RunProgress
from simulations.references import references, rounds_of
from simulations.scenario import Scenario, load_scenario
from simulations.setup import Setup
from simulations.shared import SharedReferences, key_of_central, key_of_local_only, key_of_teacher_only
from simulations.shelf import open_shelf

TEACHER: State = {"weight": torch.zeros(2)}


def keys(scenario: Scenario) -> tuple[str, str, str]:
    return (
        key_of_local_only(scenario, 0, rounds_of(scenario, 0)),
        key_of_central(scenario, "tiny-conv-m"),
        key_of_teacher_only(scenario, "tiny-conv-m", "tiny-conv-l", TEACHER),
    )


def test_methods_that_train_alike_share_and_others_do_not() -> None:
    own, fedmd, dsfl = (keys(load_method("digits", name)) for name in ("fedstill", "fedmd", "dsfl"))
    assert own[0] == keys(load_method("digits", "local-only"))[0]
    assert fedmd == dsfl
    assert own[0] != fedmd[0]  # the product's local training knows the class prior
    assert own[1:] == fedmd[1:]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("seed=1", (False, False, False)),
        ("data.proxy_samples=300", (False, False, False)),
        ("partition.alpha=2", (False, False, False)),
        ("rounds=4", (False, True, False)),
        ("exchange.active=5", (False, True, True)),
        ("device.revisit.epochs=3", (False, True, True)),
        ("device_classes.pi5.student=tiny-conv-s", (False, True, True)),
        ("central.fit.epochs=2", (True, False, True)),
        ("students.distil.epochs=2", (True, True, False)),
        ("consensus.rule=mean", (True, True, True)),
        ("exchange.uplink=simplex1", (True, True, True)),
    ],
)
def test_a_reference_is_another_when_something_changes_that_it_depends_on(
    change: str, kept: tuple[bool, bool, bool]
) -> None:
    before, after = keys(load_scenario("digits")), keys(load_scenario("digits", [change]))
    assert tuple(one == other for one, other in zip(before, after, strict=True)) == kept


def test_another_initial_teacher_and_another_device_have_references_of_their_own() -> None:
    scenario = load_scenario("digits")
    other = key_of_teacher_only(scenario, "tiny-conv-m", "tiny-conv-l", {"weight": torch.ones(2)})
    assert other != keys(scenario)[2]
    own = [key_of_local_only(scenario, number, rounds) for number, rounds in ((0, (1, 2)), (1, (1, 2)), (0, (2,)))]
    assert len(set(own)) == 3


def setup_of(small: Scenario, folder: Path) -> tuple[Setup, Plan]:
    setup = Setup(small, folder / "run", 1, "local", references=folder.parent / "shared")
    open_shelf(setup.assets, small)
    return setup, plan_of(setup)


def test_a_second_run_computes_nothing_that_the_first_did(
    small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.teacher is not None
    initial = students.initial(small.task, small.teacher.architecture, 0)
    setup, plan = setup_of(small, tmp_path / "one")
    *_, (left, first) = references(setup, plan, initial, setup.out / "references")
    assert left == 0

    def no_training(*arguments: object) -> float:
        raise AssertionError("computed twice")

    for name in ("central", "teacher_only", "local_only"):
        monkeypatch.setattr(module, name, no_training)
    monkeypatch.setattr("simulations.baselines.alone.local_only", no_training)
    setup, plan = setup_of(small, tmp_path / "two")
    assert list(references(setup, plan, initial, setup.out / "references")) == [(0, first)]
    assert len(first) == 8 + small.devices
    assert {path.stem for path in (setup.out / "references").iterdir()} == set(first)

    setup, _ = setup_of(small, tmp_path / "three")
    with RunProgress(Console(quiet=True)) as progress:
        outcome = run_local_only(None, setup, open_shelf(setup.assets, small), progress)  # type: ignore[arg-type]
    assert outcome.references.items() <= first.items()


def test_without_a_folder_nothing_is_shared() -> None:
    shared = SharedReferences(None)
    shared.put("key", 0.5)
    assert shared.get("key") is None
