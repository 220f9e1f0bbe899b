import os
import signal
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import optuna
import pytest
import torch
from optuna.study import StudyDirection

from fedstill.device_classes import Budget
from fedstill.errors import ConfigError, ExportError
from fedstill.learning import State
from fedstill.models.shapes import Shape
from server.compress.figures import Figures
from server.compress.learn import Candidate
from simulations.compress.search import DATABASE, Evaluate, Search, Tried
from simulations.compress.space import Space

SPACE = Space(Shape("pooled-conv", ((12,), (24, 24))), ("static-int8", "float32"), temperature=2.0, labelled=True)
BUDGET = Budget(flash_bytes=3000)
TRIALS = 12  # the last ones after the random ones


def evaluate(candidate: Candidate) -> tuple[Shape, State, Figures]:
    """Return figures that follow from a candidate alone."""
    channels = sum(map(sum, candidate.shape.stages))
    size = int(channels * 50 * (1 - candidate.sparsity) * (4 if candidate.numeric == "float32" else 1))
    accuracy = 1 - 1 / channels - abs(candidate.temperature - 3) / 100
    state = {"weight": torch.full((2,), float(channels))}
    return (
        candidate.shape,
        state,
        Figures(accuracy, 1 - accuracy, size, size * 2, size / 100, channels, float(channels)),
    )


def run(out: Path, trials: int, how: Evaluate = evaluate) -> list[Tried]:
    out.mkdir(exist_ok=True)
    search = Search(out, SPACE, BUDGET, seed=0)
    try:
        while search.finished < trials:
            search.step(how)
        return search.tried
    finally:
        search.close()


def killed_at(out: Path, trial: int) -> None:
    """Search until the process is killed in the middle of a trial."""
    calls = 0

    def kill(candidate: Candidate) -> tuple[Shape, State, Figures]:
        nonlocal calls
        calls += 1
        if calls > trial:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(candidate)

    run(out, TRIALS, kill)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Tried]:
    return run(tmp_path_factory.mktemp("search") / "whole", TRIALS)


def numbered(tried: list[Tried]) -> list[Tried]:
    return [replace(one, number=place) for place, one in enumerate(tried)]


def test_the_first_trial_is_the_hand_made_student_as_the_run_distils_it(undisturbed: list[Tried]) -> None:
    first = undisturbed[0]
    assert first.number == 0
    assert first.student == str(SPACE.hand_made)
    assert first.parameters == {
        "width": 1.0,
        "depth": 0,
        "sparsity": 0.0,
        "format": "static-int8",
        "temperature": 2.0,
        "alpha": 1.0,
    }
    assert len({str(one.parameters) for one in undisturbed}) == TRIALS


def test_a_search_that_is_killed_in_its_trials_goes_on_to_the_same_ones(
    undisturbed: list[Tried], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    for place in (0, 10):
        process = get_context("spawn").Process(target=killed_at, args=(out, place))
        process.start()
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL
    found = run(out, TRIALS)
    assert numbered(found) == numbered(undisturbed)
    assert [one.hand_made for one in found] == [True] + [False] * (TRIALS - 1)
    assert found[-1].state(out)["weight"][0] == found[-1].figures.parameters


def test_candidates_that_cannot_be_built_count_and_are_told(tmp_path: Path) -> None:
    def refuse(candidate: Candidate) -> tuple[Shape, State, Figures]:
        if candidate.numeric == "float32":
            raise ExportError("no floats here")
        return evaluate(candidate)

    found = run(tmp_path / "out", 6, refuse)
    assert 0 < len(found) < 6
    search = Search(tmp_path / "out", SPACE, BUDGET, seed=0)
    assert search.finished == 6
    assert len(search.failures) == 6 - len(found)
    assert all(reason.endswith("in float32: no floats here") for reason in search.failures)
    search.close()


def test_a_damaged_search_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="no search can be read here") as told:
        Search(tmp_path, SPACE, BUDGET, seed=0)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("first", [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE])
def test_a_search_that_measured_other_figures_is_refused_before_it_goes_on(
    first: StudyDirection, tmp_path: Path
) -> None:
    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path / DATABASE}",
        study_name="compress",
        directions=[first, *[StudyDirection.MINIMIZE] * 3],
    )
    trial = study.ask()
    trial.set_user_attr("figures", {"accuracy": 0.9, "bytes": 1})
    study.tell(trial, [0.9, 1, 1, 1])
    with pytest.raises(
        ConfigError, match=r"another version of Fedstill searched here.* begin another in another folder"
    ):
        run(tmp_path, TRIALS)
    assert len(study.get_trials()) == 1
