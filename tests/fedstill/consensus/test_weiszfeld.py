import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import Votes, geometric_median, weiszfeld


def votes(rows: np.ndarray, present: np.ndarray | None = None) -> Votes:
    devices, samples, classes = rows.shape
    return Votes(
        rows.astype(np.float32),
        np.ones((devices, samples), dtype=np.bool_) if present is None else present,
        np.ones((devices, samples), np.float32),
        np.full((devices, classes), 1 / classes, np.float32),
    )


def cost(rows: np.ndarray, point: np.ndarray) -> float:
    return float(np.linalg.norm(rows - point, axis=1).sum())


@given(seed=st.integers(0, 2**32 - 1))
def test_no_point_nearby_is_nearer_to_all_votes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(3), (5, 1))
    found = geometric_median(votes(rows), iterations=300, tolerance=1e-7).labels[0].astype(np.float64)
    least = cost(rows[:, 0], found)
    for other in (*rows[:, 0], rows[:, 0].mean(axis=0), *(0.9 * found + 0.1 * rng.dirichlet(np.ones(3), 5))):
        assert least <= cost(rows[:, 0], other) + 1e-3


def test_a_majority_that_agrees_is_not_moved() -> None:
    rows = np.array([[[0.7, 0.2, 0.1]]] * 3 + [[[0.0, 0.0, 1.0]]] * 2)
    assert np.allclose(geometric_median(votes(rows)).labels, rows[0], atol=1e-2)


def test_blocks_hardly_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(3), (4, 11))
    whole = geometric_median(votes(rows)).labels
    monkeypatch.setattr(weiszfeld, "BLOCK", 36)
    assert np.allclose(geometric_median(votes(rows)).labels, whole, atol=1e-3)
