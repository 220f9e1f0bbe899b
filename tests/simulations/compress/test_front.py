from hypothesis import given
from hypothesis import strategies as st

from fedstill.device_classes import Budget
from server.compress.figures import Figures
from simulations.compress.front import choose, holding, nearest, pareto
from simulations.compress.search import Tried


def tried(
    number: int,
    accuracy: float,
    size: int,
    memory: int = 10,
    latency: float = 1.0,
    parameters: int = 1,
    loss: float | None = None,
) -> Tried:
    figures = Figures(accuracy, 1 - accuracy if loss is None else loss, size, memory, latency, parameters, flops=1.0)
    return Tried(number, f"pooled-conv[{number + 1}]", {"format": "static-int8"}, figures)


def test_the_front_has_what_nothing_betters_and_of_equals_the_first() -> None:
    ones = [
        tried(0, 0.8, 100),
        tried(1, 0.9, 200),
        tried(2, 0.85, 200),  # as large as 1 and worse
        tried(3, 0.8, 100),  # equals 0
        tried(4, 0.7, 300, memory=5),  # the least memory
        tried(5, 0.7, 90, latency=9.0),
        tried(6, 0.7, 400, loss=0.05),  # the least cross-entropy
    ]
    assert [one.number for one in pareto(ones)] == [5, 0, 1, 4, 6]


def test_of_students_that_few_samples_cannot_tell_apart_the_one_with_the_least_cross_entropy_is_chosen() -> None:
    ones = [tried(0, 0.90, 100, loss=0.4), tried(1, 0.88, 900, loss=0.3), tried(2, 0.80, 10, loss=0.1)]
    assert choose(ones, samples=100).number == 1, "a standard error is three points here"
    assert choose(ones, samples=10_000).number == 0, "and 0.3 here"
    assert choose(ones, samples=3).number == 2


def test_without_a_mistake_on_a_few_samples_a_student_is_not_beyond_doubt() -> None:
    assert choose([tried(0, 1.0, 100, loss=0.4), tried(1, 0.99, 900, loss=0.3)], samples=100).number == 1


def test_of_equals_the_cheapest_is_chosen_then_the_first() -> None:
    ones = [tried(0, 0.9, 300), tried(1, 0.9, 200, latency=2.0), tried(2, 0.9, 200), tried(3, 0.9, 200)]
    assert choose(ones, samples=100).number == 2


@given(data=st.data())
def test_the_chosen_one_is_on_the_front(data: st.DataObject) -> None:
    few = st.integers(1, 3)
    ones = [
        tried(number, 0.9 + data.draw(few) / 100, data.draw(few), loss=data.draw(few) / 10)
        for number in range(data.draw(st.integers(1, 6)))
    ]
    assert choose(ones, samples=data.draw(st.integers(1, 1000))) in pareto(ones)


def test_each_limit_of_a_budget_excludes_and_what_is_not_limited_does_not() -> None:
    ones = [tried(0, 0.9, 300), tried(1, 0.9, 100, memory=99), tried(2, 0.9, 100, latency=99.0), tried(3, 0.5, 100)]
    budget = Budget(flash_bytes=200, ram_bytes=50, latency_ms=10)
    assert [one.number for one in holding(ones, budget)] == [3]
    assert [one.number for one in holding(ones, Budget(flash_bytes=200))] == [1, 2, 3]
    assert [one.number for one in holding([*ones, tried(4, 0.9, 1, parameters=9)], Budget(parameters=8))] == [
        0,
        1,
        2,
        3,
    ]
    assert len(holding(ones, Budget())) == 4


def test_what_comes_nearest_is_told_with_its_figures_and_the_limits() -> None:
    ones = [tried(0, 0.9, 5000), tried(1, 0.8, 1200, latency=12.5)]
    text = nearest(ones, Budget(flash_bytes=1000, latency_ms=10))
    assert text == (
        "pooled-conv[2] in static-int8 takes 1,200 bytes of flash where 1,000 are allowed "
        "and 12.5 ms where 10 are allowed"
    )
