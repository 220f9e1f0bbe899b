import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import Votes, class_experts, median, order, reputable_experts, trimmed_mean


def votes(rows: np.ndarray, present: np.ndarray | None = None, priors: np.ndarray | None = None) -> Votes:
    devices, samples, classes = rows.shape
    return Votes(
        rows.astype(np.float32),
        np.ones((devices, samples), dtype=np.bool_) if present is None else present,
        np.ones((devices, samples), np.float32),
        np.full((devices, classes), 1 / classes, np.float32) if priors is None else priors.astype(np.float32),
    )


def normalized(row: np.ndarray) -> np.ndarray:
    return np.full_like(row, 1 / len(row)) if row.sum() == 0 else row / row.sum()


@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 9), share=st.sampled_from([0.0, 0.1, 0.25, 0.45]))
def test_order_statistics_are_numpys_own_on_those_present(seed: int, devices: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    rows, present = rng.dirichlet(np.ones(3), (devices, 5)).astype(np.float32), rng.random((devices, 5)) < 0.7
    middle, inner = median(votes(rows, present)).labels, trimmed_mean(votes(rows, present), share=share).labels
    for sample in np.flatnonzero(present.any(axis=0)):
        there = np.sort(rows[present[:, sample], sample], axis=0)
        cut = int(share * len(there))
        assert np.allclose(middle[sample], normalized(np.median(there, axis=0)), atol=1e-5)
        assert np.allclose(inner[sample], normalized(there[cut : len(there) - cut].mean(axis=0)), atol=1e-5)


def test_blocks_don_t_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(3), (4, 11))
    whole = median(votes(rows)).labels
    monkeypatch.setattr(order, "BLOCK", 36)
    assert np.array_equal(median(votes(rows)).labels, whole)


def test_voters_who_agree_on_nothing_give_no_class_an_advantage() -> None:
    assert np.allclose(median(votes(np.eye(3)[:, None])).labels, 1 / 3)


def test_a_plain_median_drops_the_lone_expert_and_experts_with_a_reputation_don_t() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    ignorant = 0.9 * np.eye(3)[np.where(labels == 2, rng.integers(0, 2, 300), labels)] + 0.1 / 3
    expert = 0.9 * np.eye(3)[labels] + 0.1 / 3
    rows = np.array([ignorant] * 4 + [expert])
    priors = np.array([[0.5, 0.5, 0]] * 4 + [[0.1, 0.1, 0.8]])
    alone = labels == 2
    assert not (median(votes(rows, priors=priors)).labels.argmax(axis=1) == labels)[alone].any()
    for rule in (class_experts, reputable_experts):
        assert (rule(votes(rows, priors=priors)).labels.argmax(axis=1) == labels).all()
