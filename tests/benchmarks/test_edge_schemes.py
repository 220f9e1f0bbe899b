"""What the comparison of edge schemes makes of a run's rows."""

from pathlib import Path

import pytest

from benchmarks.edge_schemes import CHANGES, METHODS, compared, figures, replay, run
from fedstill.errors import RunFolderError
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


@pytest.mark.parametrize("method", ["fedstill", "neighbours"])
def test_a_run_is_made_once_replayed_from_its_devices_states_and_never_taken_for_another(
    method: str, small_options: list[str], tmp_path: Path
) -> None:
    changes = [*small_options[1::2], *CHANGES[2:], "partition.min_samples=12"]
    scenario = load_method("digits", method, changes)
    out = tmp_path / "run"
    rows = run(scenario, out)
    assert len(rows) == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(scenario, out) == rows
    found = replay(out)
    assert set(found) == set(scenario.device_classes)
    for spent in found.values():
        assert min(spent["cpu_seconds"], spent["peak_rss_bytes"], spent["state_bytes"]) > 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(RunFolderError, match=r"another configuration \(stream\)"):
        run(load_method("digits", method, [*changes, "stream.drift=disturbance"]), out)
