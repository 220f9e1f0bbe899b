"""What the comparison of edge schemes makes of a run's rows."""

import pytest

from benchmarks.edge_schemes import CHANGES, METHODS, compared, figures
from simulations.methods import load_method


def test_figures_tell_the_stream_before_at_and_after_the_drift_and_bytes_per_device() -> None:
    scenario = load_method("digits", "fedstill", CHANGES)
    classes = list(scenario.device_classes)
    rows = [
        {
            "refused": {"1": "late"} if number == 2 else {},
            "device_accuracy": dict.fromkeys(classes, number / 10),
            "prequential_accuracy": dict.fromkeys(classes, value),
            "uplink_bytes": 80 * number,
            "downlink_bytes": 160 * number,
        }
        for number, value in enumerate((0.1, 0.8, 0.9, 0.3, 0.5, 0.7), start=1)
    ]
    found = figures(scenario, rows)
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["prequential_before"] == pytest.approx(0.85)
    assert found["prequential_at"] == pytest.approx(0.3)
    assert found["prequential_after"] == pytest.approx(0.6)
    assert (found["uplink_bytes"], found["downlink_bytes"], found["refused"]) == (60, 120, 1)


def test_a_figure_that_a_run_lacks_is_null_and_one_run_has_no_deviation() -> None:
    both = compared([{"a": 0.5, "b": None}, {"a": 0.7, "b": 0.1}])
    assert both["a"]["mean"] == pytest.approx(0.6)
    assert both["b"] == {"mean": None, "std": None}
    assert compared([{"a": 0.5}])["a"]["std"] is None


def test_the_schemes_have_one_split_stream_fleet_and_training() -> None:
    scenarios = [load_method("digits", name, CHANGES) for name in METHODS]
    for key in (
        "task",
        "seed",
        "rounds",
        "devices",
        "data",
        "partition",
        "stream",
        "device",
        "device_classes",
        "teacher",
    ):
        assert len({repr(getattr(scenario, key)) for scenario in scenarios}) == 1
