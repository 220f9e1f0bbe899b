"""What a candidate costs and what it is worth, measured on its very ONNX file."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fedstill.device_classes import Budget, NumericFormat
from fedstill.errors import ExportError, ReleaseError
from fedstill.learning import State, parameters, restored
from fedstill.models.shapes import Shape
from fedstill.release.selftest import ask
from fedstill.tasks import Task, load_task
from server.astray import finite
from server.compress.learn import Material
from server.compress.prune import flops
from server.release.arena import activation_bytes
from server.release.export import export, normalization
from server.release.formats import FORMATS
from server.release.runtime import latency_ms, logits

PATIENCE = 120  # seconds for a fresh process to answer
ROUGH = 1_000_000  # bytes: of two processes with the same student, peak memory differs by less
UNITS = {"bytes": "bytes of flash", "memory_bytes": "bytes of memory", "parameters": "parameters", "latency_ms": "ms"}
LIMITED = {
    "bytes": "flash_bytes",
    "memory_bytes": "ram_bytes",
    "parameters": "parameters",
    "latency_ms": "latency_ms",
}


@dataclass(frozen=True)
class Figures:
    """A candidate's figures.

    Attributes:
        accuracy: on the validation samples, as a share.
        cross_entropy: of the predictions with the validation samples' labels, their mean in nats.
        bytes: of the file in its format.
        memory_bytes: as the class's budget counts it: peak resident memory of a fresh ONNX Runtime process, or the
            activations that live at once.
        latency_ms: median of one sample on one thread, here or as the class's devices would take.
        parameters: trained parameters.
        flops: multiply-accumulate operations of one sample.
    """

    accuracy: float
    cross_entropy: float
    bytes: int
    memory_bytes: int
    latency_ms: float
    parameters: int
    flops: float

    def violations(self, budget: Budget) -> dict[str, float]:
        """Return how far each figure that the budget limits is above its limit, as a share of it; at most 0: held."""
        limits = budget.model_dump()
        return {
            name: getattr(self, name) / limits[limit] - 1
            for name, limit in LIMITED.items()
            if limits[limit] is not None
        }


def misses(figures: Figures, budget: Budget) -> str:
    """Return in words which limits of a budget are missed, and by what."""
    found, limits = asdict(figures), budget.model_dump()
    return " and ".join(
        f"{_number(found[name])} {UNITS[name]} where {_number(limits[LIMITED[name]])} are allowed"
        for name, excess in figures.violations(budget).items()
        if excess > 0
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.7g}"


class Exported:
    """A student as an fp32 ONNX file, from which its formats are made.

    Args:
        folder: where the files go; it exists.
        shape: the student's.
        state: its parameters and buffers.
        material: holds the validation and calibration samples.

    Raises:
        ExportError: the student can't be exported, or came to no numbers as it learned.
    """

    def __init__(self, folder: Path, shape: Shape, state: State, material: Material) -> None:
        if not finite(state):
            raise ExportError(f"{shape} has parameters that are no numbers: its training went astray")
        self._task, self._material = load_task(material.task), material
        self._model = restored(shape.build, self._task, state)
        self._source, self._target = folder / "fp32.onnx", folder / "student.onnx"
        export(self._model, self._task, self._source)

    def figures(self, numeric: NumericFormat, budget: Budget, latency_scale: float = 1.0) -> Figures:
        """Write the student in a format and measure the file.

        Args:
            numeric: name of the format.
            budget: says how memory is counted.
            latency_scale: how many times this machine's latency the class's devices take.

        Raises:
            ExportError: the format does nothing for this student, the runtime does not run it, or what it says are
                no numbers.
        """
        task, material = self._task, self._material
        images, labels = material.validation
        kind = FORMATS[numeric]
        kind.write(self._source, self._target, task, material.calibration)
        content = self._target.read_bytes()
        if budget.ram == "activations":
            memory = kind.activation_bytes * activation_bytes(self._source)
        else:
            memory = _peak_rss(self._target, material, task)
        predicted = logits(content, task, images)
        if not np.isfinite(predicted).all():
            raise ExportError("its predictions are no numbers: its training went astray")
        return Figures(
            accuracy=float((predicted.argmax(axis=1) == labels.argmax(axis=1)).mean()),
            cross_entropy=float(F.cross_entropy(torch.from_numpy(predicted), torch.from_numpy(labels))),
            bytes=len(content),
            memory_bytes=memory,
            latency_ms=latency_ms(content, task, images[:1]) * latency_scale,
            parameters=parameters(self._model),
            flops=flops(self._model, task),
        )


def measure(
    shape: Shape, state: State, numeric: NumericFormat, material: Material, budget: Budget, latency_scale: float = 1.0
) -> Figures:
    """Return a student's figures in one format; arguments and errors are those of `Exported`."""
    with tempfile.TemporaryDirectory() as folder:
        return Exported(Path(folder), shape, state, material).figures(numeric, budget, latency_scale)


def _peak_rss(path: Path, material: Material, task: Task) -> int:
    how = normalization(task)
    try:
        return ROUGH * -(-ask(path, material.calibration[:1], how, PATIENCE).peak_rss_bytes // ROUGH)
    except ReleaseError as error:
        raise ExportError(str(error)) from error
