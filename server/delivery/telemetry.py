"""What a device tells, checked: everything in it is untrusted until each value is finite and within its bounds.

One report is about one version of one class. What a device can't tell is absent, never zero.
"""

import math
from dataclasses import dataclass

from fedstill.release.verify import NAME
from protos.delivery_pb2 import Outcome, Telemetry

MAX_SEQUENCE = 2**62
MAX_DETAIL, MAX_WORD = 500, 100
FAILED = (Outcome.OUTCOME_REFUSED, Outcome.OUTCOME_ROLLED_BACK)
OUTCOMES = {number: name.removeprefix("OUTCOME_").lower() for name, number in Outcome.items() if number}

# Smallest and largest believable value: milliseconds, bytes, degrees Celsius, watts, counts, fractions.
BOUNDS = {
    "latency_p50_ms": (1e-6, 1e6),
    "latency_p90_ms": (1e-6, 1e6),
    "latency_p99_ms": (1e-6, 1e6),
    "peak_rss_bytes": (1, 2**42),
    "temperature_celsius": (-100, 300),
    "power_watts": (0, 1e4),
    "samples": (0, 2**40),
    "accuracy": (0, 1),
    "drift": (0, 1),
    "predictions": (0, 2**50),
}
TEXTS = {"detail": MAX_DETAIL, "file": MAX_WORD, "onnxruntime": MAX_WORD, "processor": MAX_WORD}


class RefusedError(Exception):
    """A report is refused; says why."""


@dataclass(frozen=True)
class Checked:
    """A report that holds what its types promise.

    Attributes:
        device: id of the device.
        device_class: its class.
        sequence: grows with each report of the device.
        version: of the release that it is about.
        outcome: what became of the release.
        detail: a sentence about it.
        measured: numbers by field name, those of `BOUNDS` that the device could tell.
    """

    device: str
    device_class: str
    sequence: int
    version: int
    outcome: int
    detail: str
    measured: dict[str, float]


def check(message: Telemetry) -> Checked:
    """Check a message.

    Raises:
        RefusedError: a value is missing, not finite, out of its bounds or contradicts another.
    """
    for name in ("device_id", "device_class"):
        if not NAME.fullmatch(getattr(message, name)):
            raise RefusedError(f"{name} is no name: 1 to 100 letters, digits, '.', '_', '-', no '.' in front")
    for name, longest in TEXTS.items():
        if len(getattr(message, name)) > longest:
            raise RefusedError(f"{name} is longer than {longest} characters")
    if not 1 <= message.sequence <= MAX_SEQUENCE:
        raise RefusedError("sequence is not between 1 and 2**62")
    if not 1 <= message.version < 2**31:
        raise RefusedError("version is that of no release")
    if message.outcome not in OUTCOMES:
        raise RefusedError("outcome is unknown")
    if not (math.isfinite(message.unix_seconds) and 0 <= message.unix_seconds < 1e11):
        raise RefusedError("unix_seconds is no time")
    measured = {}
    for name, (low, high) in BOUNDS.items():
        if message.HasField(name):
            value = getattr(message, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise RefusedError(f"{name} is not between {low:g} and {high:g}")
            measured[name] = value
    quantiles = [measured[name] for name in BOUNDS if name.startswith("latency") and name in measured]
    if quantiles != sorted(quantiles):
        raise RefusedError("latency quantiles fall")
    if "accuracy" in measured and not measured.get("samples"):
        raise RefusedError("accuracy is about no samples")
    return Checked(
        device=message.device_id,
        device_class=message.device_class,
        sequence=message.sequence,
        version=message.version,
        outcome=message.outcome,
        detail=message.detail,
        measured=measured,
    )
