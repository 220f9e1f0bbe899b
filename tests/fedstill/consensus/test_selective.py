"""FedGEMS: the teacher keeps what it is sure of, and learns the rest from those who are surest."""

import numpy as np

from fedstill.consensus import Votes, selective_teacher

SURE, FLAT = [0.98, 0.01, 0.01], [1 / 3, 1 / 3, 1 / 3]


def votes(rows: list[list[list[float]]], present: list[list[bool]], unsure: list[bool] | None) -> Votes:
    found = np.array(rows, np.float32) * np.array(present)[:, :, None]
    return Votes(
        probabilities=found.astype(np.float32),
        present=np.array(present),
        certainty=np.ones(found.shape[:2], np.float32),
        class_priors=np.full((len(rows), 3), 1 / 3, np.float32),
        teacher=np.tile(np.array([[0.1, 0.1, 0.8]], np.float32), (found.shape[1], 1)),
        unsure=None if unsure is None else np.array(unsure),
    )


def test_what_the_teacher_is_sure_of_no_device_touches() -> None:
    result = selective_teacher(votes([[SURE, SURE]], [[True, True]], [False, True]))
    assert result.covered.tolist() == [False, True]
    assert not result.labels[0].any()
    assert np.allclose(result.labels[1], SURE, atol=1e-5)


def test_elsewhere_devices_count_by_the_softmax_of_their_inverse_entropies() -> None:
    rows = [[[0.7, 0.2, 0.1]], [[0.1, 0.5, 0.4]], [[0.2, 0.2, 0.6]]]
    result = selective_teacher(votes(rows, [[True], [True], [False]], None))
    first, second = (np.array(rows[place][0]) for place in (0, 1))
    inverse = np.array([1 / -(row * np.log(row)).sum() for row in (first, second)])
    alpha = np.exp(inverse) / np.exp(inverse).sum()
    assert np.allclose(result.labels[0], alpha[0] * first + alpha[1] * second, atol=1e-5)


def test_a_sure_device_outweighs_many_that_know_nothing() -> None:
    result = selective_teacher(votes([[SURE]] + [[FLAT]] * 20, [[True]] * 21, [True]))
    assert result.labels[0, 0] > 0.9


def test_where_the_teacher_is_unsure_and_nobody_answers_nothing_is_covered() -> None:
    result = selective_teacher(votes([[SURE]], [[False]], [True]))
    assert not result.covered.any()
    assert not result.labels.any()
