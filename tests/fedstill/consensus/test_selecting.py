import numpy as np

from fedstill.consensus import Votes, selection

ROWS = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.9], [0.7, 0.3]]], np.float32)


def votes(certainty: list[list[float]]) -> Votes:
    return Votes(
        ROWS, np.ones((2, 2), dtype=np.bool_), np.array(certainty, np.float32), np.full((2, 2), 0.5, np.float32)
    )


def test_ambiguous_samples_are_dropped() -> None:
    result = selection(votes([[1, 1], [1, 1]]), ambiguity=0.5)
    assert result.covered.tolist() == [False, True]  # 2 (1 - 0.5) = 1 and 2 (1 - 0.8) = 0.4
    assert not result.labels[0].any()
    assert np.allclose(result.labels[1], [0.8, 0.2])


def test_votes_out_of_their_domain_are_left_out() -> None:
    result = selection(votes([[1, 0], [0, 0]]), ambiguity=2)
    assert result.covered.tolist() == [True, False]
    assert np.allclose(result.labels[0], [0.9, 0.1])
