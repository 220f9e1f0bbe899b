from fedstill.device_classes import Budget
from server.compress.figures import Figures
from simulations.compress.front import choose, holding, nearest, pareto
from simulations.compress.search import Tried


def tried(
    number: int, accuracy: float, size: int, memory: int = 10, latency: float = 1.0, parameters: int = 1
) -> Tried:
    figures = Figures(accuracy, size, memory, latency, parameters, flops=1.0)
    return Tried(number, f"pooled-conv[{number + 1}]", {"format": "static-int8"}, figures)


def test_the_front_has_what_nothing_betters_and_of_equals_the_first() -> None:
    ones = [
        tried(0, 0.8, 100),
        tried(1, 0.9, 200),
        tried(2, 0.85, 200),  # as large as 1 and worse
        tried(3, 0.8, 100),  # equals 0
        tried(4, 0.7, 300, memory=5),  # the least memory
        tried(5, 0.7, 90, latency=9.0),
    ]
    assert [one.number for one in pareto(ones)] == [5, 0, 1, 4]


def test_the_most_accurate_is_chosen_and_of_these_the_smallest() -> None:
    ones = [tried(0, 0.9, 300), tried(1, 0.9, 200, latency=2.0), tried(2, 0.9, 200, latency=1.0), tried(3, 0.8, 10)]
    assert choose(ones).number == 2


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
