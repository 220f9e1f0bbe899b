"""What holds for every rule, whatever the votes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import RULES, Consensus, Rule, Votes, entropies, mean, rules
from fedstill.settings import ConsensusSettings, EraSettings, TrimmedMeanSettings
from fedstill.soft_labels import soft_labels

# Without the ambiguity filter, which drops samples by design, a rule covers what somebody voted on.
EVERY = rules(ConsensusSettings.model_validate({"selection": {"ambiguity": 2, "certainty": 0}}))
SHARPENING = {"era", "enhanced-era"}
# Samples may stay without a label, as an abstention is a word there, or as the teacher is sure: tests of their own.
UNDECIDED = {"density-experts", "selective-teacher"}


def random_votes(seed: int, devices: int, samples: int, classes: int = 4) -> Votes:
    rng = np.random.default_rng(seed)
    present = rng.random((devices, samples)) < 0.6
    rows = rng.dirichlet(np.full(classes, 0.3), (devices, samples)).astype(np.float32)
    return Votes(
        probabilities=rows * present[:, :, None],
        present=present,
        certainty=rng.random((devices, samples), dtype=np.float32),
        class_priors=rng.dirichlet(np.full(classes, 0.3), devices).astype(np.float32),
        teacher=rng.dirichlet(np.full(classes, 0.3), samples).astype(np.float32) if seed % 2 else None,
        unsure=rng.random(samples) < 0.5 if seed % 3 else None,
        reputation=rng.random((devices, classes), dtype=np.float32) if seed % 5 else None,
    )


def taken(votes: Votes, order: np.ndarray) -> Votes:
    """Return the votes of some devices, in this order."""
    return replace(
        votes,
        probabilities=votes.probabilities[order],
        present=votes.present[order],
        certainty=votes.certainty[order],
        class_priors=votes.class_priors[order],
        reputation=None if votes.reputation is None else votes.reputation[order],
    )


@pytest.mark.parametrize("name", [name for name in EVERY if name not in UNDECIDED])
@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 6), samples=st.integers(1, 8))
def test_every_rule_returns_the_simplex_where_somebody_voted_and_zero_elsewhere(
    name: str, seed: int, devices: int, samples: int
) -> None:
    votes = random_votes(seed, devices, samples)
    result = EVERY[name](votes)
    assert result.labels.dtype == np.float32
    somebody = votes.present.any(axis=0)
    assert not (result.covered & ~somebody).any()
    if name != "reputable-experts":  # about what only devices of no worth speak of it decides nothing
        assert result.covered[somebody].all()
    assert np.allclose(result.labels.sum(axis=1), result.covered, atol=1e-4)
    assert (result.labels >= 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_where_nobody_answers_no_rule_has_labels(name: str) -> None:
    assert not EVERY[name](Votes.none(4, 5)).covered.any()


@pytest.mark.parametrize("name", EVERY)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_rule_depends_on_the_order_of_devices(name: str, seed: int) -> None:
    votes = random_votes(seed, 5, 6)
    order = np.random.default_rng(seed).permutation(5)
    one, other = EVERY[name](votes), EVERY[name](taken(votes, order))
    assert np.allclose(one.labels, other.labels, atol=1e-3 if name == "geometric-median" else 1e-4)
    if one.reputation is not None:
        assert other.reputation is not None
        assert np.allclose(one.reputation[order], other.reputation, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_certainty_of_what_is_absent_does_not_matter(name: str, seed: int) -> None:
    votes = random_votes(seed, 5, 6)
    rng = np.random.default_rng(seed)
    absent = ~votes.present
    other = replace(votes, certainty=np.where(absent, rng.random((5, 6), dtype=np.float32), votes.certainty))
    assert np.allclose(RULES[name](votes).labels, RULES[name](other).labels, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in RULES if name not in UNDECIDED])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_device_that_answers_nothing_does_not_matter(name: str, seed: int) -> None:
    votes = random_votes(seed, 5, 6)
    silent = replace(
        votes,
        probabilities=votes.probabilities * (np.arange(5) < 4)[:, None, None].astype(np.float32),
        present=votes.present & (np.arange(5) < 4)[:, None],
    )
    assert np.allclose(RULES[name](silent).labels, RULES[name](taken(silent, np.arange(4))).labels, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RULES if name not in SHARPENING | UNDECIDED | {"prior-calibrated"}])
@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 5))
def test_a_unanimous_vote_is_returned(name: str, seed: int, devices: int) -> None:
    rng = np.random.default_rng(seed)
    row = (0.02 + 0.92 * rng.dirichlet(np.ones(4))).astype(np.float32)
    row = np.array([*(row[:3] / row.sum()), 0], np.float32)
    row[3] = 1 - row.sum()
    votes = replace(random_votes(seed, devices, 6), teacher=None, unsure=None)
    votes = replace(votes, probabilities=row * votes.present[:, :, None].astype(np.float32))
    settings = ConsensusSettings.model_validate({"selection": {"ambiguity": 2, "certainty": 0}})
    result = rules(settings)[name](votes)
    assert np.allclose(result.labels[result.covered], row, atol=1e-3)


@pytest.mark.parametrize("name", sorted(SHARPENING | {"prior-calibrated"}))
def test_rules_that_change_a_unanimous_vote_keep_its_class(name: str) -> None:
    row = np.array([0.5, 0.3, 0.2], np.float32)
    votes = Votes(
        np.broadcast_to(row, (3, 2, 3)).copy(),
        np.ones((3, 2), dtype=np.bool_),
        np.ones((3, 2), np.float32),
        np.full((3, 3), 1 / 3, np.float32),
    )
    assert (RULES[name](votes).labels.argmax(axis=1) == 0).all()


def flood(votes: Votes, hostile: int) -> Votes:
    """Let the last `hostile` devices claim full certainty and all of their data in a class that they always name."""
    rows, priors, certainty = np.array(votes.probabilities), votes.class_priors.copy(), votes.certainty.copy()
    rows[-hostile:] = priors[-hostile:] = np.eye(rows.shape[2], dtype=np.float32)[-1]
    certainty[-hostile:] = 1
    return replace(votes, probabilities=rows, class_priors=priors, certainty=certainty)


@pytest.mark.parametrize(
    ("name", "hostile"), [("median", 4), ("trimmed-mean", 2), ("geometric-median", 4), ("reputable-experts", 4)]
)
@pytest.mark.parametrize("with_teacher", [True, False])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_hostile_minority_does_not_turn_what_the_others_agree_on(
    with_teacher: bool, name: str, hostile: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = 40
    truth = (0.9 * np.eye(4)[np.arange(samples) % 3] + 0.1 * rng.dirichlet(np.ones(4), samples)).astype(np.float32)
    votes = Votes(
        probabilities=np.repeat(truth[None], 10, axis=0),
        present=np.ones((10, samples), dtype=np.bool_),
        certainty=np.full((10, samples), 0.5, np.float32),
        class_priors=np.full((10, 4), 0.25, np.float32),
        teacher=truth if with_teacher else None,
    )
    result = RULES[name](flood(votes, hostile))
    assert np.array_equal(result.labels.argmax(axis=1), truth.argmax(axis=1))
    assert np.abs(result.labels - truth).max() < 0.1


def test_parameters_come_from_the_settings() -> None:
    votes = random_votes(0, 5, 6)
    settings = ConsensusSettings(era=EraSettings(temperature=1e-3), trimmed_mean=TrimmedMeanSettings(share=0.0))
    made = rules(settings)
    odds = np.exp(mean(votes).labels * 1e3 - 1e3 * mean(votes).labels.max(axis=1, keepdims=True))
    assert np.allclose(made["era"](votes).labels[0], (odds / odds.sum(axis=1, keepdims=True))[0], atol=1e-3)
    assert np.allclose(made["trimmed-mean"](votes).labels, mean(votes).labels, atol=1e-5)


def test_the_entropy_of_votes_and_consensus_is_about_the_same_samples() -> None:
    sure, unsure = [1.0, 0.0], [0.5, 0.5]
    votes = Votes(
        probabilities=np.array([[sure, unsure, [0, 0]], [unsure, unsure, [0, 0]]], np.float32),
        present=np.array([[True, True, False], [True, True, False]]),
        certainty=np.ones((2, 3), np.float32),
        class_priors=np.full((2, 2), 0.5, np.float32),
    )
    labels = np.array([sure, [0, 0], unsure], np.float32)  # the second is not published, nobody voted on the third
    before, after = entropies(votes, labels)
    assert before == pytest.approx(np.log(2) / 2)
    assert after == pytest.approx(0, abs=1e-6)
    assert entropies(replace(votes, present=np.zeros((2, 3), dtype=np.bool_)), labels) == (None, None)


def test_stacking_fills_in_what_devices_did_not_send() -> None:
    labels = soft_labels(np.arange(2), np.full((2, 4), 0.25, np.float32))
    stacked = Votes.stack(np.arange(2), {3: labels, 1: labels})
    assert stacked.certainty.tolist() == [[1, 1], [1, 1]]
    assert np.allclose(stacked.class_priors, 0.25)
    assert stacked.reputation is None


def test_stacking_gives_each_device_its_own_reputation_and_a_new_one_none() -> None:
    labels = soft_labels(np.arange(2), np.full((2, 4), 0.25, np.float32))
    stacked = Votes.stack(np.arange(2), {3: labels, 1: labels}, reputation={3: np.ones(4, np.float32)})
    assert stacked.reputation is not None
    assert np.isnan(stacked.reputation[0]).all()
    assert (stacked.reputation[1] == 1).all()


def test_a_rule_is_any_function_of_votes() -> None:
    rule: Rule = mean
    assert isinstance(rule(random_votes(0, 2, 2)), Consensus)
