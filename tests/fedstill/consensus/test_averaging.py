import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import Votes, mean, weighted


def votes(rows: np.ndarray, present: np.ndarray) -> Votes:
    devices, samples, classes = rows.shape
    return Votes(
        rows.astype(np.float32),
        present,
        np.ones((devices, samples), np.float32),
        np.full((devices, classes), 1 / classes, np.float32),
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_a_weighted_mean_is_numpys_of_those_present(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, present = rng.dirichlet(np.ones(3), (5, 4)), rng.random((5, 4)) < 0.7
    weights = (0.1 + rng.random((5, 4))).astype(np.float32)
    result = weighted(votes(rows, present), weights)
    for sample in np.flatnonzero(present.any(axis=0)):
        there = present[:, sample]
        expected = np.average(rows[there, sample], axis=0, weights=weights[there, sample])
        assert np.allclose(result.labels[sample], expected, atol=1e-5)


def test_the_mean_is_over_those_who_answered_not_over_all() -> None:
    rows = np.array([[[1.0, 0.0]], [[0.0, 0.0]]])
    assert mean(votes(rows, np.array([[True], [False]]))).labels.tolist() == [[1.0, 0.0]]


def test_a_sample_whose_voters_all_weigh_nothing_is_not_covered() -> None:
    result = weighted(votes(np.full((2, 1, 2), 0.5), np.ones((2, 1), dtype=np.bool_)), np.zeros((2, 1), np.float32))
    assert not result.covered.any()
    assert not result.labels.any()
