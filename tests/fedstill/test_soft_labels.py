import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstill.soft_labels import draw, entropy, soft_labels


@given(seed=st.integers(0, 2**32 - 1), population=st.integers(1, 300), data=st.data())
def test_a_draw_has_distinct_ascending_samples_of_the_population(
    seed: int, population: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, population))
    round_number = data.draw(st.integers(1, 50))
    ids = draw(seed, round_number, population, count)
    assert len(ids) == count
    assert (np.diff(ids) > 0).all()
    assert ids.min() >= 0
    assert ids.max() < population


def test_consecutive_draws_cover_the_population_before_any_sample_repeats() -> None:
    drawn = np.concatenate([draw(3, round_number, 100, 20) for round_number in range(1, 6)])
    assert sorted(drawn.tolist()) == list(range(100))


def test_a_new_pass_is_drawn_in_another_order() -> None:
    assert not np.array_equal(draw(3, 1, 100, 20), draw(3, 6, 100, 20))


def test_independent_draws_are_distinct_within_a_round_and_repeat_over_rounds_as_chance_has_it() -> None:
    rounds = [draw(3, round_number, 100, 20, independent=True) for round_number in range(1, 201)]
    assert all(len(np.unique(ids)) == 20 and (np.diff(ids) > 0).all() for ids in rounds)
    assert np.array_equal(rounds[6], draw(3, 7, 100, 20, independent=True))
    counts = np.bincount(np.concatenate(rounds), minlength=100)
    # Binomial with mean 40 and deviation 5.7; a walk would draw each sample 40 times exactly.
    assert 4 < counts.std() < 8


def test_abstained_rows_are_zero() -> None:
    rows = np.full((2, 4), 0.25, dtype=np.float32)
    labels = soft_labels(np.arange(2), rows, present=np.array([True, False]))
    assert labels.probabilities[1].tolist() == [0, 0, 0, 0]


def test_entropy_is_zero_for_one_hot_and_log_classes_for_uniform() -> None:
    rows = np.array([[1, 0, 0, 0], [0.25] * 4], dtype=np.float32)
    assert np.allclose(entropy(rows), [0, np.log(4)], atol=1e-5)


def test_what_a_caller_does_to_a_draw_reaches_no_other() -> None:
    first = draw(0, 1, 100, 10)
    first[:] = 0
    assert draw(0, 1, 100, 10).max() > 0
