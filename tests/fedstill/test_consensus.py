import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import RULES, Votes, class_experts, mean, mixed
from fedstill.soft_labels import soft_labels


def votes(probabilities: np.ndarray, present: np.ndarray | None = None, priors: np.ndarray | None = None) -> Votes:
    devices, samples, classes = probabilities.shape
    return Votes(
        probabilities=probabilities.astype(np.float32),
        present=np.ones((devices, samples), dtype=np.bool_) if present is None else present,
        certainty=np.ones((devices, samples), dtype=np.float32),
        class_priors=np.full((devices, classes), 1 / classes, np.float32) if priors is None else priors,
    )


@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 6), samples=st.integers(1, 8))
def test_every_rule_returns_the_simplex_where_somebody_voted_and_zero_elsewhere(
    seed: int, devices: int, samples: int
) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((devices, samples)) < 0.6
    rows = rng.dirichlet(np.ones(4) * 0.3, (devices, samples)) * present[:, :, None]
    priors = rng.dirichlet(np.ones(4) * 0.3, devices).astype(np.float32)
    for name, rule in RULES.items():
        if name == "density-experts":
            continue  # it leaves samples undecided: test_consensus_density.py
        result = rule(votes(rows, present, priors))
        assert np.array_equal(result.covered, present.any(axis=0))
        assert np.allclose(result.labels.sum(axis=1), result.covered, atol=1e-4)
        assert (result.labels >= 0).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_no_rule_depends_on_the_order_of_devices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, priors = rng.dirichlet(np.ones(3), (5, 4)), rng.dirichlet(np.ones(3), 5).astype(np.float32)
    order = rng.permutation(5)
    for rule in RULES.values():
        one, other = rule(votes(rows, priors=priors)), rule(votes(rows[order], priors=priors[order]))
        assert np.allclose(one.labels, other.labels, atol=1e-5)


def test_the_mean_is_over_those_who_answered_not_over_all() -> None:
    rows = np.array([[[1.0, 0.0]], [[0.0, 0.0]]])
    result = mean(votes(rows, np.array([[True], [False]])))
    assert result.labels.tolist() == [[1.0, 0.0]]


def test_the_lone_expert_of_a_class_decides_about_it() -> None:
    ignorant = [0.45, 0.45, 0.1]
    rows = np.array([[ignorant], [ignorant], [ignorant], [[0.02, 0.0, 0.98]]])
    priors = np.array([[0.5, 0.5, 0.0]] * 3 + [[0.0, 0.0, 1.0]], dtype=np.float32)
    assert mean(votes(rows)).labels.argmax() != 2
    assert class_experts(votes(rows, priors=priors)).labels.argmax() == 2


def test_no_single_device_can_rule_out_a_class_that_many_holders_see() -> None:
    honest = [[[0.9, 0.05, 0.05]]] * 9
    rows = np.array([*honest, [[0.0, 1.0, 0.0]]])
    priors = np.full((10, 3), 1 / 3, dtype=np.float32)
    assert class_experts(votes(rows, priors=priors)).labels.argmax() == 0


def test_a_class_that_nobody_holds_is_judged_by_all() -> None:
    rows = np.array([[[0.1, 0.1, 0.8]], [[0.2, 0.1, 0.7]]])
    priors = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=np.float32)
    assert class_experts(votes(rows, priors=priors)).labels.argmax() == 2


def test_mixing_keeps_either_side_at_the_ends_and_the_simplex_between() -> None:
    first, second = np.array([[0.7, 0.2, 0.1]], np.float32), np.array([[0.1, 0.1, 0.8]], np.float32)
    assert np.allclose(mixed(first, second, np.array([0.0], np.float32)), first, atol=1e-6)
    assert np.allclose(mixed(first, second, np.array([1.0], np.float32)), second, atol=1e-6)
    between = mixed(first, second, np.array([0.5], np.float32))
    assert between.sum() == np.float32(1) or abs(float(between.sum()) - 1) < 1e-6


def test_stacking_fills_in_what_devices_did_not_send() -> None:
    labels = soft_labels(np.arange(2), np.full((2, 4), 0.25, np.float32))
    stacked = Votes.stack(np.arange(2), {3: labels, 1: labels})
    assert stacked.certainty.tolist() == [[1, 1], [1, 1]]
    assert np.allclose(stacked.class_priors, 0.25)
