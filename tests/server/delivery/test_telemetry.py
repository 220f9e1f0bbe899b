"""What devices tell: refused unless every value is believable, kept on disk, summarized."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from fedstill.device_classes import Budget
from fedstill.errors import ConfigError
from protos.delivery_pb2 import Outcome, Telemetry
from server.delivery.records import VERSIONS, FullError, Records, read_summary
from server.delivery.summary import DRIFT_PREDICTIONS, Found, Summary, read
from server.delivery.telemetry import BOUNDS, RefusedError, check


def report(device: str = "a", sequence: int = 1, version: int = 1, **fields: object) -> Telemetry:
    known = {"device_class": "pi5", "outcome": Outcome.OUTCOME_RUNNING, **fields}
    return Telemetry(device_id=device, sequence=sequence, version=version, **known)  # type: ignore[arg-type]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records(tmp_path / "telemetry.sqlite", most=3)
    yield made
    made.close()


def add(records: Records, message: Telemetry, now: float = 1.0) -> int:
    return records.add(check(message), "digits", "tiny", now)


def only(records: Records) -> Found:
    (found,) = records.summary().found
    return found


GARBAGE: dict[str, list[object]] = {
    "device_id": ["", "../a", "a/b", "a" * 101, "a\n", ".a", "ä"],
    "device_class": ["", "pi 5", "x" * 101],
    "sequence": [0, 2**62 + 1, 2**64 - 1],
    "version": [0, 2**31, 2**64 - 1],
    "outcome": [0, 6, -1, 2**31 - 1],
    "detail": ["x" * 501],
    "file": ["x" * 101],
    "onnxruntime": ["x" * 101],
    "processor": ["x" * 101],
    "unix_seconds": [math.nan, math.inf, -1.0, 1e12],
    "latency_p50_ms": [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e7],
    "latency_p90_ms": [math.nan],
    "latency_p99_ms": [math.nan],
    "peak_rss_bytes": [0, 2**63],
    "temperature_celsius": [math.nan, -274.0, 1e9],
    "power_watts": [math.nan, -0.1, 1e9],
    "samples": [2**63],
    "accuracy": [math.nan, -0.1, 1.1],
    "drift": [math.nan, -0.1, 1.1],
    "predictions": [2**63],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GARBAGE.items() for value in values])
def test_garbage_is_refused_by_the_name_of_its_field(name: str, value: object) -> None:
    message = report(samples=5)
    setattr(message, name, value)
    with pytest.raises(RefusedError, match=name):
        check(message)


def test_values_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RefusedError, match="latency quantiles fall"):
        check(report(latency_p50_ms=2.0, latency_p99_ms=1.0))
    with pytest.raises(RefusedError, match="accuracy is about no samples"):
        check(report(accuracy=0.5))


@given(st.binary(max_size=300))
def test_whatever_bytes_come_are_refused_or_within_bounds(content: bytes) -> None:
    try:
        found = check(Telemetry.FromString(content))
    except (DecodeError, RefusedError):
        return
    assert all(low <= found.measured.get(name, low) <= high for name, (low, high) in BOUNDS.items())


def test_what_a_device_can_not_tell_is_absent_and_zero_is_not() -> None:
    found = check(report(power_watts=0.0, drift=0.0))
    assert found.measured == {"power_watts": 0.0, "drift": 0.0}


def test_a_repeated_report_counts_once_and_an_older_one_not_at_all(records: Records) -> None:
    assert add(records, report(sequence=5, latency_p50_ms=10.0)) == 5
    assert add(records, report(sequence=5, latency_p50_ms=99.0)) == 5
    assert add(records, report(sequence=4, latency_p50_ms=99.0)) == 5
    assert only(records).latency_ms_p50 == 10.0
    assert add(records, report(sequence=6, latency_p50_ms=20.0)) == 6
    assert only(records).latency_ms_p50 == 20.0


def test_the_latest_outcome_counts_and_a_measurement_stays_until_the_next_one(records: Records) -> None:
    add(records, report(sequence=1, outcome=Outcome.OUTCOME_REFUSED, latency_p50_ms=10.0))
    add(records, report(sequence=2, outcome=Outcome.OUTCOME_COMMITTED))
    found = only(records)
    assert (found.outcomes, found.failed, found.latency_ms_p50) == ({"committed": 1}, 0, 10.0)


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.sqlite"
    first = Records(path)
    add(first, report(sequence=3, latency_p50_ms=10.0))
    # What is on disk while the first one lives is what a kill leaves.
    second = Records(path)
    assert add(second, report(sequence=2)) == 3
    assert only(second).latency_ms_p50 == 10.0
    first.close()
    second.close()


def test_storage_is_bounded_by_devices_and_by_versions_of_each(records: Records) -> None:
    for sequence in range(1, 3 * VERSIONS):
        add(records, report("a", sequence, version=sequence), now=float(sequence))
    assert [found.version for found in records.summary().found] == list(range(2 * VERSIONS, 3 * VERSIONS))
    add(records, report("b"), now=1.0)
    add(records, report("c"), now=1.0)
    with pytest.raises(FullError, match="3 devices are known already"):
        add(records, report("d"), now=2.0)
    add(records, report("b", 2), now=100 * 86_400.0)
    assert add(records, report("d"), now=100 * 86_400.0) == 1
    assert sum(found.devices for found in records.summary().found) == 2


def test_a_summary_is_of_devices_and_accuracy_of_samples(records: Records) -> None:
    add(records, report("a", latency_p50_ms=10.0, temperature_celsius=60.0, accuracy=0.9, samples=100))
    add(records, report("b", latency_p50_ms=30.0, temperature_celsius=80.0, accuracy=0.5, samples=300))
    add(records, report("c", latency_p50_ms=11.0, outcome=Outcome.OUTCOME_ROLLED_BACK))
    found = only(records)
    assert (found.devices, found.latency_ms_p50, found.temperature_celsius, found.samples) == (3, 11.0, 80.0, 400)
    assert found.accuracy == pytest.approx(0.6)
    assert (found.outcomes, found.failed) == ({"rolled_back": 1, "running": 2}, 1)
    assert (found.task, found.student) == ("digits", "tiny")
    assert (found.slow(Budget(latency_ms=10)), found.slow(Budget(latency_ms=12)), found.slow(Budget())) == (
        True,
        False,
        False,
    )


def test_drift_is_of_devices_that_predicted_enough(records: Records) -> None:
    add(records, report("a", drift=0.9, predictions=DRIFT_PREDICTIONS - 1))
    assert only(records).drift is None
    add(records, report("b", drift=0.3, predictions=DRIFT_PREDICTIONS))
    assert (only(records).drift, only(records).drifting) == (0.3, True)


def test_outcomes_are_those_since_a_time(records: Records) -> None:
    add(records, report("a", outcome=Outcome.OUTCOME_REFUSED), now=1.0)
    add(records, report("b", outcome=Outcome.OUTCOME_INSTALLED), now=2.0)
    found = records.outcomes("pi5", 1, since=0.0)
    assert (set(found.failed), set(found.told)) == ({"a"}, {"a", "b"})
    assert records.outcomes("pi5", 1, since=1.0).told == {"b"}
    assert records.outcomes("pi5", 2, since=0.0).told == records.outcomes("pi4", 1, since=0.0).told == set()


def test_a_summary_survives_its_file_and_names_the_newest_of_a_student(tmp_path: Path, records: Records) -> None:
    for version in (1, 2):
        add(records, report(str(version), version=version, latency_p50_ms=float(version)))
    summary = records.summary()
    path = tmp_path / "telemetry.json"
    path.write_text(summary.model_dump_json())
    assert read(path) == summary
    newest = summary.newest("pi5", "digits", "tiny")
    assert newest is not None
    assert newest.version == 2
    assert summary.newest("pi5", "digits", "other") is summary.newest("pi4", "digits", "tiny") is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"found": [{}]}', b'{"format_version": 2}', b"\xff"])
def test_a_file_that_is_no_summary_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "telemetry.json").write_bytes(content)
    with pytest.raises(ConfigError, match="no summary of telemetry"):
        read(tmp_path / "telemetry.json")
    with pytest.raises(ConfigError, match="no telemetry can be read here"):
        read(tmp_path / "missing")


def test_a_data_base_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "telemetry.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(ConfigError, match="telemetry can't be kept here"):
        Records(tmp_path / "telemetry.sqlite")
    assert read_summary(tmp_path / "none") == Summary()
