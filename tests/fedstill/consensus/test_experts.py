import numpy as np

from fedstill.consensus import Votes, class_experts, mean, mixed


def votes(probabilities: np.ndarray, present: np.ndarray | None = None, priors: np.ndarray | None = None) -> Votes:
    devices, samples, classes = probabilities.shape
    return Votes(
        probabilities=probabilities.astype(np.float32),
        present=np.ones((devices, samples), dtype=np.bool_) if present is None else present,
        certainty=np.ones((devices, samples), dtype=np.float32),
        class_priors=np.full((devices, classes), 1 / classes, np.float32) if priors is None else priors,
    )


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
    certain, other = np.array([[1.0, 0.0, 0.0]], np.float32), np.array([[0.0, 1.0, 0.0]], np.float32)
    assert np.array_equal(mixed(certain, other, np.array([0.0], np.float32)), certain)
    assert np.array_equal(mixed(certain, other, np.array([1.0], np.float32)), other)
    between = mixed(first, second, np.array([0.5], np.float32))
    assert between.sum() == np.float32(1) or abs(float(between.sum()) - 1) < 1e-6
