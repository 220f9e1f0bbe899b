import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.schedules import SCHEDULES, cosine, exponential, linear, progress_of

TEMPERATURES = st.floats(0.1, 20)


@given(start=TEMPERATURES, end=TEMPERATURES)
def test_every_schedule_starts_at_start_and_all_but_constant_end_at_end(start: float, end: float) -> None:
    for name, schedule in SCHEDULES.items():
        assert schedule(0.0, start, end) == pytest.approx(start)
        assert schedule(1.0, start, end) == pytest.approx(start if name == "constant" else end)


@given(progress=st.floats(0, 1), start=TEMPERATURES, end=TEMPERATURES)
def test_every_schedule_stays_between_its_ends(progress: float, start: float, end: float) -> None:
    for schedule in SCHEDULES.values():
        assert min(start, end) * 0.999 <= schedule(progress, start, end) <= max(start, end) * 1.001


def test_the_middle_of_each_schedule_is_what_its_name_says() -> None:
    assert linear(0.5, 1.0, 9.0) == pytest.approx(5.0)
    assert exponential(0.5, 1.0, 9.0) == pytest.approx(3.0)
    assert cosine(0.5, 1.0, 9.0) == pytest.approx(5.0)
    assert cosine(0.1, 1.0, 9.0) < linear(0.1, 1.0, 9.0)


def test_progress_runs_from_zero_to_one_over_the_rounds() -> None:
    assert [progress_of(number, 5) for number in (1, 3, 5)] == [0.0, 0.5, 1.0]
    assert progress_of(1, 1) == 0.0
