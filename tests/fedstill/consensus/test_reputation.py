from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import Votes, class_experts, confidence_threshold, informedness, reputable_experts
from fedstill.consensus.reputation import _Part, _Whole, remembered

CLASSES, SAMPLES = 4, 400
LABELS = np.arange(SAMPLES) % CLASSES
TRUTH = np.eye(CLASSES)[LABELS]


def blurred(rows: np.ndarray, by: float = 0.2) -> np.ndarray:
    return np.asarray((1 - by) * rows + by / CLASSES, np.float32)


def federation(devices: int = 10, teacher: np.ndarray | None = None) -> Votes:
    """Honest devices, each with most of its data in one class, which they all know."""
    return Votes(
        probabilities=np.repeat(blurred(TRUTH)[None], devices, axis=0),
        present=np.ones((devices, SAMPLES), dtype=np.bool_),
        certainty=np.ones((devices, SAMPLES), np.float32),
        class_priors=blurred(np.eye(CLASSES)[np.arange(devices) % CLASSES]),
        teacher=teacher,
    )


def corrupt(votes: Votes, rows: np.ndarray, hostile: int = 2) -> Votes:
    """Let the first devices vote `rows` and claim that all of their data are of class 0."""
    changed, priors = np.array(votes.probabilities), votes.class_priors.copy()
    changed[:hostile] = rows
    priors[:hostile] = np.eye(CLASSES, dtype=np.float32)[0]
    return replace(votes, probabilities=changed, class_priors=priors)


def right(labels: np.ndarray) -> float:
    return float((labels.argmax(axis=1) == LABELS).mean())


LIES = {
    "flipped": np.roll(TRUTH, 1, axis=1),
    "shuffled": TRUTH[np.random.default_rng(0).permutation(SAMPLES)],
    "random": np.random.default_rng(1).dirichlet(np.full(CLASSES, 0.1), SAMPLES),
    "constant": np.tile(np.eye(CLASSES)[1], (SAMPLES, 1)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("with_teacher", [True, False])
def test_liars_lose_their_reputation_and_the_honest_keep_theirs(lie: str, with_teacher: bool) -> None:
    votes = corrupt(federation(teacher=blurred(TRUTH, 0.3) if with_teacher else None), LIES[lie])
    result = reputable_experts(votes)
    assert result.reputation is not None
    assert result.reputation[:2].max() < 0.1
    assert (
        result.reputation[2:].min() > 0.4 - 1e-6
    )  # beside a constant liar it is 0.4, which processors round either way
    assert right(result.labels) == 1


@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_device_of_no_worth_decides_nothing_alone(with_teacher: bool) -> None:
    votes = corrupt(federation(teacher=blurred(TRUTH, 0.3) if with_teacher else None), LIES["flipped"], hostile=1)
    alone = np.array(votes.present)
    alone[1:, :10] = False
    result = reputable_experts(replace(votes, present=alone, probabilities=votes.probabilities * alone[:, :, None]))
    assert result.reputation is not None
    assert result.reputation[0].max() < 1e-5
    assert not result.covered[:10].any()
    assert not result.labels[:10].any()
    assert result.covered[10:].all()
    honest = np.roll(alone, 1, axis=0)
    kept = reputable_experts(replace(votes, present=honest, probabilities=votes.probabilities * honest[:, :, None]))
    assert kept.covered.all()


def test_where_nobody_can_be_told_from_chance_all_count() -> None:
    votes = replace(federation(), probabilities=np.tile(blurred(TRUTH)[0], (10, SAMPLES, 1)))
    result = reputable_experts(votes)
    assert result.reputation is not None
    assert result.reputation[:, 0].max() < 1e-5
    assert result.covered.all()


def test_unchecked_class_experts_fall_to_the_same_lie() -> None:
    votes = corrupt(federation(), LIES["flipped"], hostile=4)
    assert right(class_experts(votes).labels) < 0.9
    assert right(reputable_experts(votes).labels) == 1


def test_a_device_that_lies_only_where_the_teacher_is_not_sure_is_caught_by_the_others() -> None:
    unsure = np.arange(SAMPLES) % 5 == 0
    teacher = np.where(unsure[:, None], np.float32(1 / CLASSES), blurred(TRUTH))
    honest = federation(teacher=teacher)
    sly = np.where(unsure[:, None], np.roll(TRUTH, 1, axis=1), TRUTH)
    votes = replace(corrupt(honest, sly, hostile=3), unsure=unsure)
    reputation = reputable_experts(votes).reputation
    assert reputation is not None
    assert reputation[:3].max() < 0.1 < reputation[3:].min()


def test_a_class_claimed_by_a_liar_alone_is_judged_by_those_who_know_it() -> None:
    votes = federation()
    votes = replace(votes, class_priors=np.tile(np.array([0, 0.4, 0.3, 0.3], np.float32), (10, 1)))
    assert right(reputable_experts(corrupt(votes, LIES["constant"], hostile=1)).labels) == 1


@given(seed=st.integers(0, 2**32 - 1))
def test_chance_has_no_informedness_whatever_the_shares_of_the_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(rng.dirichlet(np.ones(CLASSES)) + 0.05).astype(np.float32)
    votes = replace(federation(1), probabilities=np.tile(rows, (1, SAMPLES, 1)))
    assert informedness(votes, blurred(TRUTH)).max() < 1e-4


def test_informedness_is_the_difference_of_hit_and_false_alarm_rates_of_those_present() -> None:
    votes = federation(2)
    rows = np.array(votes.probabilities)
    rows[0], rows[1] = TRUTH, LIES["flipped"]
    votes.present[1, LABELS != 0] = False
    rows[1, LABELS != 0] = 0
    votes = replace(votes, probabilities=rows)
    assert np.allclose(informedness(votes, TRUTH.astype(np.float32))[0], 1)
    assert np.allclose(informedness(votes, TRUTH.astype(np.float32))[1], 0)


def test_reputation_is_lost_at_once_and_regained_slowly() -> None:
    good, bad, all_of_it = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), np.ones((1, 2), np.bool_)
    assert np.allclose(remembered(bad, all_of_it, good, 0.5), 0)
    once = remembered(good, all_of_it, bad, 0.5)
    assert np.allclose(once, 0.5)
    assert np.allclose(remembered(good, all_of_it, once, 0.5), 0.75)
    assert np.allclose(remembered(good, all_of_it, np.full((1, 2), np.nan, np.float32), 0.5), good)
    assert np.allclose(remembered(good, all_of_it, None, 0.5), good)


def test_what_was_not_measured_leaves_what_is_known() -> None:
    now, measured = np.array([[0.0, 0.8]], np.float32), np.array([[False, True]])
    before = np.array([[0.9, 0.8]], np.float32)
    assert np.allclose(remembered(now, measured, before, 0.5), [[0.9, 0.8]])
    assert np.array_equal(remembered(now, measured, None, 0.5), np.array([[np.nan, 0.8]], np.float32), equal_nan=True)


def about(votes: Votes, samples: np.ndarray, before: np.ndarray | None) -> Votes:
    """A later round that asks about some samples only."""
    teacher = None if votes.teacher is None else votes.teacher[samples]
    return replace(votes.about(samples), teacher=teacher, reputation=before)


@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_round_that_asks_nothing_or_nothing_of_a_class_forgets_and_forgives_nobody(with_teacher: bool) -> None:
    votes = corrupt(federation(teacher=blurred(TRUTH, 0.3) if with_teacher else None), LIES["flipped"])
    first = reputable_experts(votes)
    assert first.reputation is not None
    nothing = reputable_experts(about(votes, np.zeros(0, np.int64), first.reputation)).reputation
    assert nothing is not None
    assert np.array_equal(nothing, first.reputation)
    few = reputable_experts(about(votes, np.flatnonzero(LABELS < 2), first.reputation))
    assert few.reputation is not None
    assert np.array_equal(few.reputation[:, 2:], first.reputation[:, 2:])
    assert few.reputation[:2].max() < 0.1
    assert (few.labels.argmax(axis=1) == LABELS[LABELS < 2]).all()


def test_a_device_that_abstains_about_a_class_keeps_its_reputation_for_it() -> None:
    votes = federation(teacher=blurred(TRUTH, 0.05))
    first = reputable_experts(votes).reputation
    assert first is not None
    present = votes.present.copy()
    present[0, LABELS == 0] = False
    silent = replace(votes, present=present, probabilities=np.array(votes.probabilities) * present[:, :, None])
    second = reputable_experts(replace(silent, reputation=first)).reputation
    assert second is not None
    third = reputable_experts(replace(votes, reputation=second)).reputation
    assert third is not None
    assert third[0, 0] == pytest.approx(first[0, 0], abs=0.02)


def test_a_past_liar_counts_less_than_one_who_never_lied() -> None:
    votes = federation()
    first = reputable_experts(corrupt(votes, LIES["flipped"])).reputation
    second = reputable_experts(replace(votes, reputation=first)).reputation
    assert second is not None
    assert second[:2].max() < 0.6 * second[2:].min()


def test_the_threshold_is_the_lowest_confidence_that_is_right_often_enough() -> None:
    rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    assert confidence_threshold(rows, np.array([0, 0, 1, 0]), 1.0) == pytest.approx(0.8)
    assert confidence_threshold(rows, np.array([0, 0, 1, 0]), 0.75) == pytest.approx(0.6)
    assert confidence_threshold(rows, np.array([1, 1, 1, 1]), 0.5) == float("inf")


def test_the_threshold_does_not_tell_apart_what_is_equally_confident() -> None:
    rows = np.array([[1.0, 0.0]] * 5 + [[0.6, 0.4]] * 5, np.float32)
    assert confidence_threshold(rows, np.array([0, 0, 0, 1, 1] + [0] * 5), 1.0) == float("inf")
    assert confidence_threshold(rows, np.array([0, 0, 0, 1, 1] + [0] * 5), 0.8) == pytest.approx(0.6)


@given(seed=st.integers(0, 2**32 - 1), sure=st.integers(0, 3))
def test_copied_by_class_or_in_place_the_checks_are_the_same_and_those_of_their_formulas(seed: int, sure: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((5, 12)) < 0.7
    rows = (rng.dirichlet(np.full(CLASSES, 0.3), (5, 12)) * present[:, :, None]).astype(np.float32)
    certainty = rng.random((5, 12), dtype=np.float32)
    votes = replace(federation(5), probabilities=rows, present=present, certainty=certainty)
    claims = certainty * present
    places = np.arange(sure, 12)
    copied, weights = _Part(votes, claims, places), rng.random((5, CLASSES), dtype=np.float32)
    about = replace(votes, probabilities=rows[:, places], present=present[:, places])
    in_place = _Whole(about, claims[:, places])
    for place, own in enumerate(rows):
        copied.keep(place, own)
    shares = weights[:, None] * claims[:, places, None]
    odds = (shares * rows[:, places]).sum(axis=0) / np.maximum(shares.sum(axis=0), 1e-30)
    expected = odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-30)
    for way in (copied, in_place):
        assert np.allclose(way.judged(weights), expected, atol=1e-5)
        assert np.allclose(
            way.informedness(blurred(TRUTH[places])), informedness(about, blurred(TRUTH[places])), atol=1e-5
        )
