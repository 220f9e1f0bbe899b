import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import Votes, certainty_weighted, entropy_weighted, mean
from fedstill.consensus.weighting import bounded


def votes(rows: np.ndarray, certainty: np.ndarray | None = None, present: np.ndarray | None = None) -> Votes:
    devices, samples, classes = rows.shape
    return Votes(
        rows.astype(np.float32),
        np.ones((devices, samples), dtype=np.bool_) if present is None else present,
        np.ones((devices, samples), np.float32) if certainty is None else certainty.astype(np.float32),
        np.full((devices, classes), 1 / classes, np.float32),
    )


def test_the_certain_decide() -> None:
    rows = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.0, 1.0]]])
    result = certainty_weighted(votes(rows, np.array([[1, 0], [0, 1]])))
    assert np.allclose(result.labels, [[0.9, 0.1], [0.0, 1.0]])


def test_where_nobody_is_certain_all_count_alike() -> None:
    rows = np.array([[[0.9, 0.1]], [[0.3, 0.7]]])
    assert np.allclose(certainty_weighted(votes(rows, np.zeros((2, 1)))).labels, mean(votes(rows)).labels)


def test_a_device_that_claims_to_be_certain_of_everything_has_no_more_to_say_than_the_median_device() -> None:
    rng = np.random.default_rng(0)
    certainty = (rng.random((9, 500)) < 0.1).astype(np.float32)
    certainty[0] = 1
    totals = bounded(votes(np.full((9, 500, 2), 0.5)), certainty).sum(axis=1)
    assert totals[0] == pytest.approx(np.median(certainty.sum(axis=1)), rel=1e-4)
    assert (totals <= totals[0] * 1.0001).all()


def test_a_device_that_is_certain_of_nothing_bounds_nobody() -> None:
    certainty = np.array([[0.0, 0.0], [1.0, 0.5], [0.5, 0.5]])
    weights = bounded(votes(np.full((3, 2, 2), 0.5)), certainty)
    assert np.allclose(weights, np.array([[0, 0], [1.25 / 1.5, 0.625 / 1.5], [0.5, 0.5]]))


def test_the_bound_counts_only_what_is_present() -> None:
    present = np.array([[True, False, False, False], [True, True, True, True], [True, True, True, True]])
    claims = np.ones((3, 4), np.float32)
    totals = bounded(votes(np.full((3, 4, 2), 0.5), present=present), claims).sum(axis=1)
    assert totals.tolist() == [1, 4, 4]


def test_one_who_claims_certainty_everywhere_does_not_outvote_the_experts() -> None:
    samples, classes = 100, 10
    labels = np.arange(samples) % classes
    rows = np.full((classes + 2, samples, classes), 1 / classes)
    certainty = np.zeros((classes + 2, samples))
    for device in range(classes):  # each knows one class
        own = labels == device
        rows[device, own] = np.eye(classes)[device]
        certainty[device, own] = 1
    rows[-2:], certainty[-2:] = np.eye(classes)[0], 1
    assert (certainty_weighted(votes(rows, certainty)).labels.argmax(axis=1) == labels).all()


def test_a_vote_without_information_weighs_nothing() -> None:
    rows = np.array([[[0.25, 0.25, 0.25, 0.25]], [[0.7, 0.1, 0.1, 0.1]]])
    assert np.allclose(entropy_weighted(votes(rows)).labels, rows[1], atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(3, 7), samples=st.integers(1, 12))
def test_whatever_a_device_claims_it_weighs_in_all_no_more_than_some_other_device(
    seed: int, devices: int, samples: int
) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((devices, samples)) < 0.8
    present[:, 0] = True
    claims = (rng.random((devices, samples)) ** rng.integers(1, 9, (devices, 1))).astype(np.float32)
    claims[0] = rng.choice([0.0, 1e-30, 0.5, 1.0], samples)
    totals = bounded(votes(np.full((devices, samples, 2), 0.5), present=present), claims).sum(axis=1)
    assert totals[0] <= totals[1:].max() * (1 + 1e-5)
    assert (totals <= (claims * present).sum(axis=1) * (1 + 1e-5)).all()


@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([0.25, 0.5]))
def test_to_claim_the_same_louder_everywhere_gains_nothing_beyond_the_bound(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    claims = rng.random((5, 9)).astype(np.float32)
    claims[0] = 1  # more than the median device's in all, even with the factor below
    claims[1:] *= np.float32(factor * 0.5)
    rows = rng.dirichlet(np.ones(3), (5, 9))
    quieter = claims.copy()
    quieter[0] *= np.float32(factor)
    louder, found = certainty_weighted(votes(rows, claims)), certainty_weighted(votes(rows, quieter))
    assert np.allclose(louder.labels, found.labels, atol=1e-5)
