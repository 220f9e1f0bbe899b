import pytest

from benchmarks.label_cache import figures
from simulations.scenario import Scenario


def test_figures_are_totals_of_the_bytes_and_means_of_the_late_accuracies(small: Scenario) -> None:
    rows = [
        {
            "asked": asked,
            "uplink_bytes": 100 * place,
            "downlink_bytes": 200 * place,
            "released_accuracy": {"a": place / 10, "b": place / 10 + 0.2},
            "device_accuracy": {"a": place / 10, "b": None},
            "teacher_accuracy": 0.5,
        }
        for place, asked in enumerate((30, 0, 15), start=1)
    ]
    found = figures(small.model_copy(update={"rounds": 3}), rows)
    assert found["uplink_fraction"] == 0.5
    assert (found["uplink_bytes"], found["downlink_bytes"]) == (300, 600)
    assert found["accuracy_students"] == pytest.approx(0.4)
    assert found["accuracy_devices"] == pytest.approx(0.3)
