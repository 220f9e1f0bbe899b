"""What a device tells about the releases it runs: written to a queue on its disk, sent by the updater when it can.

Counts and means of the whole device; nothing about a single sample.
"""

import contextlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.message import DecodeError

from client.emulation import emulated
from client.predict.student import runtime_version
from client.sensors import power, temperature
from client.updates.clock import moment
from client.updates.home import REPORTS, Home
from fedstill.files import write_atomic
from protos.delivery_pb2 import Outcome, Telemetry

QUEUE = 200  # reports; the oldest make room
COUNTED = 2**48  # what no device comes to: a server that claims to know a later report is not believed
DETAIL = 500  # characters, as the wire contract says


@dataclass(frozen=True)
class Figures:
    """What was measured of a running student.

    Attributes:
        milliseconds: of single predictions, ascending.
        peak_rss: bytes of the process that runs it; None: unknown.
        drift: see `client.updates.watch`; None: too few predictions.
        predictions: that the drift is about.
        right: of the labelled local samples, those that it predicted right.
        labelled: those samples.
    """

    milliseconds: Sequence[float] = ()
    peak_rss: int | None = None
    drift: float | None = None
    predictions: int = 0
    right: int = 0
    labelled: int = 0


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values don't exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.machine())[:100]


def enqueue(
    home: Home, version: int, outcome: Outcome, detail: str = "", file: str = "", figures: Figures = Figures()
) -> None:
    """Put a report into the queue; a disk that is full costs the report, never the update.

    Args:
        home: of the device.
        version: the release that it is about.
        outcome: what became of it.
        detail: in words.
        file: the model file.
        figures: what was measured.
    """
    with contextlib.suppress(OSError):
        _enqueue(home, version, outcome, detail, file, figures)


def _enqueue(home: Home, version: int, outcome: Outcome, detail: str, file: str, figures: Figures) -> None:
    state = home.change(lambda state: state.model_copy(update={"sequence": state.sequence + 1}))
    report = Telemetry(
        device_id=state.device_id,
        device_class=state.device_class or "",
        sequence=state.sequence,
        unix_seconds=time.time() if moment(datetime.now(UTC), state.seen).clock else 0,
        version=version,
        outcome=outcome,
        detail=detail[:DETAIL],
        file=file,
        peak_rss_bytes=figures.peak_rss,
        temperature_celsius=temperature(),
        power_watts=power(),
        onnxruntime=runtime_version(),
        processor=_processor(),
    )
    if figures.milliseconds and not emulated():  # the server would take an emulator's times for a board's
        ascending = sorted(figures.milliseconds)
        report.latency_p50_ms = percentile(ascending, 0.5)
        report.latency_p90_ms = percentile(ascending, 0.9)
        report.latency_p99_ms = percentile(ascending, 0.99)
    if figures.drift is not None:
        report.drift, report.predictions = figures.drift, figures.predictions
    if figures.labelled:
        report.samples, report.accuracy = figures.labelled, figures.right / figures.labelled
    write_atomic(home.folder / REPORTS / f"{state.sequence:020d}", report.SerializeToString())
    for old in queued(home)[:-QUEUE]:
        old.unlink(missing_ok=True)


def _counted_on(home: Home, known: int) -> int:
    return home.change(lambda state: state.model_copy(update={"sequence": max(state.sequence, known) + 1})).sequence


def queued(home: Home) -> list[Path]:
    """Return the reports that were not sent, the oldest first."""
    return sorted(path for path in (home.folder / REPORTS).glob("[0-9]*"))


def flush(home: Home, send: Callable[[Telemetry], int | None]) -> int:
    """Send the queue in order, and return how many reports left it.

    Args:
        home: of the device.
        send: returns up to which sequence number the receiver knows; None: it will never take this one.

    Raises:
        UpdateError: as `send` does; what was not sent stays.
    """
    gone = 0
    for path in queued(home):
        try:
            report = Telemetry.FromString(path.read_bytes())
        except (DecodeError, FileNotFoundError):  # damaged on the disk, or dropped for newer ones by another process
            path.unlink(missing_ok=True)
            continue
        accepted = send(report)
        if accepted is not None and report.sequence < accepted < COUNTED:
            # Of this device the server knows later ones, of before it lost its disk: it took this one for an old one.
            report.sequence = _counted_on(home, accepted)
            accepted = send(report)
        if accepted is None or accepted >= report.sequence:
            path.unlink(missing_ok=True)
            gone += 1
    return gone
