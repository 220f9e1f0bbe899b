"""What a numeric format is: how it is made of a float file, and what a check may expect of the result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from fedstill.device_classes import NumericFormat
from fedstill.tasks import Images, Task
from server.release.weights import Kind

Write = Callable[[Path, Path, Task, Images], onnx.ModelProto]
"""Writes the form of an fp32 ONNX file to a second path and returns it; also takes the task and calibration samples
`[samples, ...]`, which only a format with quantized activations uses. Raises `ExportError` where the format does
nothing for a student, and then leaves no file."""


@dataclass(frozen=True)
class Format:
    """A numeric format.

    Attributes:
        name: in settings.
        words: in manifests.
        weights: what every operator with weights must hold in it.
        activation_bytes: of one value that lives between two operators.
        tolerance: largest difference of its logits between processors and versions of the runtime, as a share of the
            largest logit; where a model is all integers nothing may differ.
        write: makes it.
    """

    name: NumericFormat
    words: str
    weights: Kind
    activation_bytes: int
    tolerance: float
    write: Write
