import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.expiry import INITIAL, due, in_use


def at(*versions: int) -> np.ndarray:
    return np.array(versions, dtype=np.int64)


def test_a_consensus_is_due_at_exactly_the_duration_and_in_use_until_then() -> None:
    of_round_3 = at(4)
    assert [bool(due(of_round_3, round_number, 5)[0]) for round_number in range(3, 10)] == [False] * 5 + [True] * 2
    assert [bool(in_use(of_round_3, round_number, 5)[0]) for round_number in range(3, 10)] == [True] * 5 + [False] * 2


def test_without_a_duration_every_sample_is_due_and_every_known_label_in_use() -> None:
    changed = at(0, INITIAL, 2, 9)
    assert due(changed, 9, 0).all()
    assert in_use(changed, 9, 0).tolist() == [False, True, True, True]


@pytest.mark.parametrize("round_number", [1, 2, 100])
def test_what_the_teacher_knew_before_is_no_consensus_and_yet_in_use(round_number: int) -> None:
    assert due(at(INITIAL), round_number, 50).all()
    assert in_use(at(INITIAL), round_number, 50).all()


def test_an_unknown_label_is_due_and_not_in_use() -> None:
    assert due(at(0), 1, 50).all()
    assert not in_use(at(0), 1, 50).any()


@given(
    versions=st.lists(st.integers(0, 30), min_size=1, max_size=20),
    round_number=st.integers(1, 60),
    duration=st.integers(1, 40),
)
def test_no_consensus_is_both_due_and_in_use_nor_neither(versions: list[int], round_number: int, duration: int) -> None:
    changed = at(*versions)
    consensus = changed > INITIAL
    assert (due(changed, round_number, duration) ^ in_use(changed, round_number, duration))[consensus].all()
