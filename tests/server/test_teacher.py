import numpy as np
import pytest
import torch

from fedstill.errors import ConfigError
from fedstill.settings import FitSettings, TeacherSettings
from fedstill.soft_labels import Floats
from server.teacher import train_initial, update
from simulations.sources import load_digits

TASK = "simulations.sources:DIGITS"
FIT = FitSettings(epochs=15, batch=32, learning_rate=0.05)
SETTINGS = TeacherSettings(architecture="tiny-conv-s", initial=FIT, update=FIT, labelled_weight=0.0)
ARRAYS = load_digits(None)
LABELLED = (ARRAYS.train_images[:150], ARRAYS.train_labels[:150])
GUARD = (ARRAYS.train_images[150:300], ARRAYS.train_labels[150:300])
PROXY = ARRAYS.train_images[300:600]


def consensus(labels: np.ndarray) -> Floats:
    rows: Floats = np.eye(10, dtype=np.float32)[labels]
    return rows


@pytest.fixture(scope="module")
def initial() -> dict[str, torch.Tensor]:
    return train_initial(TASK, SETTINGS, *LABELLED, seed=0)


def test_a_consensus_that_knows_more_than_the_teacher_improves_it(initial: dict[str, torch.Tensor]) -> None:
    right = consensus(ARRAYS.train_labels[300:600])
    outcome = update(TASK, SETTINGS, initial, (PROXY, right), LABELLED, GUARD, seed=1)
    assert outcome.kept
    assert outcome.guard_after >= outcome.guard_before > 0.7
    assert any(not torch.equal(outcome.state[name], initial[name]) for name in initial)


def test_a_bad_consensus_is_rolled_back_to_the_old_teacher(initial: dict[str, torch.Tensor]) -> None:
    wrong = consensus((ARRAYS.train_labels[300:600] + 1) % 10)
    outcome = update(TASK, SETTINGS, initial, (PROXY, wrong), LABELLED, GUARD, seed=1)
    assert not outcome.kept
    assert outcome.guard_after < outcome.guard_before
    assert all(torch.equal(outcome.state[name], initial[name]) for name in initial)


def test_an_update_that_is_no_numbers_is_not_kept_though_it_costs_no_accuracy(
    initial: dict[str, torch.Tensor],
) -> None:
    wild = SETTINGS.model_copy(update={"update": FIT.model_copy(update={"learning_rate": 1e30})})
    first_class = (GUARD[0], np.zeros_like(GUARD[1]))  # what an answer that is no numbers counts as
    right = consensus(ARRAYS.train_labels[300:600])
    outcome = update(TASK, wild, initial, (PROXY, right), LABELLED, first_class, seed=1)
    assert outcome.guard_after >= outcome.guard_before
    assert not outcome.kept
    assert all(torch.equal(outcome.state[name], initial[name]) for name in initial)


def test_a_first_training_that_diverged_ends_with_the_teacher_and_what_to_change() -> None:
    wild = SETTINGS.model_copy(update={"initial": FIT.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(ConfigError, match=r"teacher tiny-conv-s diverged .* lower teacher\.initial\.learning_rate"):
        train_initial(TASK, wild, *LABELLED, seed=0)


def test_the_temperature_of_an_update_changes_what_is_learned(initial: dict[str, torch.Tensor]) -> None:
    right = consensus(ARRAYS.train_labels[300:600]) * 0.9 + 0.01
    hot = SETTINGS.model_copy(update={"temperature": 4.0})
    outcomes = [update(TASK, how, initial, (PROXY, right), LABELLED, GUARD, seed=1) for how in (SETTINGS, hot)]
    assert any(not torch.equal(outcomes[0].state[name], outcomes[1].state[name]) for name in initial)


def test_training_is_repeatable(initial: dict[str, torch.Tensor]) -> None:
    again = train_initial(TASK, SETTINGS, *LABELLED, seed=0)
    assert all(torch.equal(again[name], initial[name]) for name in initial)
