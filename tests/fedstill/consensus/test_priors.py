import numpy as np

from fedstill.consensus import Votes, mean, prior_calibrated


def votes(priors: np.ndarray) -> Votes:
    rows = np.array([[[0.8, 0.2]], [[0.5, 0.5]]], np.float32)
    return Votes(rows, np.ones((2, 1), dtype=np.bool_), np.ones((2, 1), np.float32), priors.astype(np.float32))


def test_a_device_s_own_class_shares_are_divided_out() -> None:
    result = prior_calibrated(votes(np.array([[0.8, 0.2], [0.5, 0.5]])))
    assert np.allclose(result.labels, [[0.5, 0.5]], atol=1e-6)  # the first only repeated what its data look like


def test_an_even_prior_changes_nothing() -> None:
    even = votes(np.full((2, 2), 0.5))
    assert np.allclose(prior_calibrated(even).labels, mean(even).labels, atol=1e-6)


def test_a_class_that_a_device_never_saw_is_raised_by_no_more_than_the_floor_allows() -> None:
    result = prior_calibrated(votes(np.array([[1.0, 0.0], [0.5, 0.5]])), floor=0.1)
    raised = np.array([0.8, 0.2 / 0.1]) / (0.8 + 0.2 / 0.1)
    assert np.allclose(result.labels[0], (raised + 0.5) / 2, atol=1e-6)
