from typing import Any

import pytest

from simulations.reached import reached

DEVICES = {"pi5": 3, "mcu": 1}


def row(
    released: dict[str, float | None], devices: dict[str, float | None], spent: int, number: int = 1
) -> dict[str, Any]:
    return {
        "round": number,
        "released_accuracy": released,
        "device_accuracy": devices,
        "uplink_bytes": spent,
        "downlink_bytes": 2 * spent,
    }


def rows(*accuracies: float) -> list[dict[str, Any]]:
    return [
        row({"pi5": accuracy, "mcu": accuracy}, {"pi5": 0.1, "mcu": None}, 100 * (place + 1), place + 1)
        for place, accuracy in enumerate(accuracies)
    ]


def test_the_best_round_need_not_be_the_last() -> None:
    found = reached(rows(0.5, 0.9, 0.8), DEVICES)
    assert found.best == pytest.approx(0.9)
    assert found.last == pytest.approx(0.8)


def test_a_target_costs_the_rounds_and_bytes_until_it_was_first_reached() -> None:
    found = reached(rows(0.5, 0.9, 0.8), DEVICES)
    assert found.cost_of(0.8) == (2, 600)
    assert found.cost_of(0.95) is None


def test_rounds_are_counted_where_one_has_no_accuracy_and_where_there_is_but_the_last() -> None:
    nothing = row({"pi5": None, "mcu": None}, {"pi5": None, "mcu": None}, 50, number=1)
    assert reached([nothing, *rows(0.5, 0.9)[1:]], DEVICES).cost_of(0.9) == (2, 600)
    assert reached([row({"pi5": 0.9, "mcu": 0.9}, {}, 0, number=10)], DEVICES).cost_of(0.8) == (10, 0)


def test_classes_count_by_their_devices_and_devices_stand_in_for_a_method_without_class_students() -> None:
    assert reached([row({"pi5": 0.8, "mcu": 0.4}, {}, 1)], DEVICES).last == pytest.approx(0.7)
    own = row({"pi5": None, "mcu": None}, {"pi5": 0.6, "mcu": None}, 1)
    assert reached([own], DEVICES).last == pytest.approx(0.6)


def test_a_run_without_rounds_reached_nothing() -> None:
    found = reached([], DEVICES)
    assert (found.best, found.last, found.cost_of(0.1)) == (None, None, None)
