import numpy as np
import pytest

from fedstill.consensus import Votes, enhanced_era, era, mean

ROWS = np.array([[[0.6, 0.3, 0.1], [0.0, 0.0, 0.0]], [[0.4, 0.5, 0.1], [0.0, 0.0, 0.0]]], np.float32)
VOTES = Votes(
    ROWS, np.array([[True, False], [True, False]]), np.ones((2, 2), np.float32), np.full((2, 3), 1 / 3, np.float32)
)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_era_is_the_softmax_of_the_mean_probabilities_over_t(temperature: float) -> None:
    odds = np.exp(ROWS[:, 0].mean(axis=0) / temperature)
    result = era(VOTES, temperature=temperature)
    assert np.allclose(result.labels[0], odds / odds.sum(), atol=1e-6)
    assert not result.labels[1].any()
    assert result.covered.tolist() == [True, False]


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_enhanced_era_is_the_power_of_the_mean(beta: float) -> None:
    power = ROWS[:, 0].mean(axis=0) ** beta
    assert np.allclose(enhanced_era(VOTES, beta=beta).labels[0], power / power.sum(), atol=1e-6)


def test_enhanced_era_keeps_the_mean_at_one() -> None:
    assert np.allclose(enhanced_era(VOTES, beta=1).labels, mean(VOTES).labels, atol=1e-6)
