import os

import pytest

from fedstill.workers import ordered, unordered


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 2:
        raise ValueError("device 2")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_calls(workers: int) -> None:
    results = ordered(square, [(number,) for number in range(8)], workers)
    assert [value for value, _ in results] == [number * number for number in range(8)]
    assert any(pid != os.getpid() for _, pid in results) == (workers > 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_result_names_the_place_of_its_call(workers: int) -> None:
    assert {place: value for place, (value, _) in unordered(square, [(5,), (6,)], workers)} == {0: 25, 1: 36}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_worker_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="device 2"):
        ordered(fail, [(number,) for number in range(4)], workers)
