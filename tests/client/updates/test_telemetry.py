"""Reports: what they say, how many wait, and that a restart loses none."""

from pathlib import Path

import pytest

from client.updates import telemetry
from client.updates.home import Home
from client.updates.telemetry import Figures, enqueue, flush, percentile, queued
from fedstill.errors import UpdateError
from protos.delivery_pb2 import OUTCOME_RUNNING, Telemetry


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99)] == [50, 90, 99]
    assert percentile([7.0], 0.99) == 7


def test_a_report_says_what_was_measured_and_leaves_out_what_was_not(home: Home) -> None:
    enqueue(home, 3, OUTCOME_RUNNING, "x" * 600, "student.onnx", Figures((3.0, 1.0, 2.0), 5, 0.25, 40, 9, 10))
    enqueue(home, 3, OUTCOME_RUNNING)
    full, bare = (Telemetry.FromString(path.read_bytes()) for path in queued(home))
    assert (full.sequence, bare.sequence) == (1, 2)
    assert (full.latency_p50_ms, full.latency_p99_ms, full.peak_rss_bytes) == (2.0, 3.0, 5)
    assert (full.drift, full.predictions, full.samples, full.accuracy) == (0.25, 40, 10, 0.9)
    assert len(full.detail) == 500
    assert full.device_id == home.state().device_id
    for name in ("latency_p50_ms", "peak_rss_bytes", "drift", "accuracy"):
        assert not bare.HasField(name)


def test_an_emulated_device_tells_no_latency(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "emulated", lambda: True)
    enqueue(home, 3, OUTCOME_RUNNING, figures=Figures((3.0, 1.0, 2.0), 5, 0.25, 40, 9, 10))
    (told,) = (Telemetry.FromString(path.read_bytes()) for path in queued(home))
    assert not told.HasField("latency_p50_ms")
    assert (told.peak_rss_bytes, told.samples) == (5, 10)


def test_the_newest_reports_wait_in_order_and_survive_a_restart(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "QUEUE", 3)
    for version in range(1, 6):
        enqueue(home, version, OUTCOME_RUNNING)
    (home.folder / "reports" / f"{3:020d}").write_bytes(b"\xff damaged")
    sent: list[int] = []

    def send(report: Telemetry) -> int:
        if len(sent) == 1:
            raise UpdateError("away")
        sent.append(report.version)
        return report.sequence

    with pytest.raises(UpdateError):
        flush(home, send)
    again = Home(home.folder)
    sent.clear()
    assert flush(again, send) == 1
    assert sent == [5]
    assert queued(home) == []


def test_a_report_that_is_never_taken_blocks_no_other(home: Home) -> None:
    enqueue(home, 1, OUTCOME_RUNNING)
    enqueue(home, 2, OUTCOME_RUNNING)
    assert flush(home, lambda report: None if report.version == 1 else 0) == 1
    assert [Telemetry.FromString(path.read_bytes()).version for path in queued(home)] == [2]


def test_a_device_that_lost_its_disk_goes_on_from_where_the_server_counted(home: Home) -> None:
    known, kept = 7, list[tuple[int, int]]()

    def send(report: Telemetry) -> int:
        nonlocal known
        if report.sequence > known:  # as the service does it
            known = report.sequence
            kept.append((report.sequence, report.version))
        return known

    enqueue(home, 1, OUTCOME_RUNNING)
    enqueue(home, 2, OUTCOME_RUNNING)
    assert flush(home, send) == 2
    enqueue(home, 3, OUTCOME_RUNNING)
    assert flush(home, send) == 1
    assert kept == [(8, 1), (9, 2), (10, 3)]
    assert queued(home) == []


def test_a_server_that_claims_to_have_heard_everything_ends_no_count(home: Home) -> None:
    enqueue(home, 1, OUTCOME_RUNNING)
    assert flush(home, lambda report: 2**64 - 1) == 1
    assert home.state().sequence == 1


def test_a_disk_that_takes_no_report_costs_the_report_only(home: Home) -> None:
    (home.folder / "reports").write_text("in the way")
    enqueue(home, 1, OUTCOME_RUNNING)
