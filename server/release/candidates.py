"""`format = "measured"`: a class's student in every format that suits it, measured, and the best of them by a rule.

A format may be taken that passes the accuracy gate, holds all weights in its own numbers, and fits the class's flash.
Of these the fastest is; those within `NOISE` of it count as equally fast, and of them the smallest file is taken. A
class whose budget counts activations runs no ONNX Runtime but integer C code, so it is given static int8 whatever is
fast here.

Times are of this machine, so a run that measures may choose otherwise elsewhere: only named formats keep the promise
that a seed gives one result.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedstill.device_classes import Budget, NumericFormat
from fedstill.errors import ExportError
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task
from server.release import checks
from server.release.formats import FORMATS, Format, weight_kinds
from server.release.paired import paired_interval
from server.release.runtime import latency_ms, logits

NOISE = 1.1  # times the fastest latency


@dataclass(frozen=True)
class Candidate:
    """A student in one format.

    Attributes:
        format: its name.
        bytes: of its file; 0: it has none.
        accuracy: on the test set.
        latency_ms: median of one sample on one thread of this machine.
        refused: why it may not be taken; empty: it may.
    """

    format: NumericFormat
    bytes: int = 0
    accuracy: float = 0.0
    latency_ms: float = 0.0
    refused: str = ""


def candidates(
    fp32: Path, task: Task, calibration: Images, test: tuple[Images, Ints], before: Ints, budget: Budget
) -> list[Candidate]:
    """Return a student in every format, measured; formats that don't suit it are refused with their reason.

    Args:
        fp32: its float file.
        task: what it learned.
        calibration: proxy samples `[samples, ...]`.
        test: images and labels of the test set.
        before: classes that the float file predicts for them `[samples]`.
        budget: of the device class.
    """
    return [_measured(kind, fp32, task, calibration, test, before, budget) for kind in FORMATS.values()]


def _measured(
    kind: Format, fp32: Path, task: Task, calibration: Images, test: tuple[Images, Ints], before: Ints, budget: Budget
) -> Candidate:
    images, labels = test
    if budget.ram == "activations" and kind.name != "static-int8":
        return Candidate(kind.name, refused="a microcontroller's C code is made of static-int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        try:
            held = weight_kinds(kind.write(fp32, path, task, calibration))
        except ExportError as error:
            return Candidate(kind.name, refused=str(error))
        content = path.read_bytes()
    after = logits(content, task, images).argmax(axis=1)
    accuracies = float((before == labels).mean()), float((after == labels).mean())
    found = [
        checks.operators(held[kind.weights], held.total(), kind.weights),
        checks.accuracy(*accuracies, paired_interval(before, after, labels)),
        checks.flash(len(content), budget),
    ]
    return Candidate(
        format=kind.name,
        bytes=len(content),
        accuracy=accuracies[1],
        latency_ms=latency_ms(content, task, images[:1]),
        refused="; ".join(checks.refusals(found)),
    )


def best(measured: Sequence[Candidate]) -> NumericFormat:
    """Return the format to release a student in; where none may be taken, the one that is refused by default."""
    allowed = [found for found in measured if not found.refused]
    if not allowed:
        return "static-int8"
    limit = NOISE * min(found.latency_ms for found in allowed)
    return min((found for found in allowed if found.latency_ms <= limit), key=lambda found: found.bytes).format
