"""`manifest.json`: what a release holds and how a device tells that it runs as it should."""

import base64
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from fedstill.config import Settings
from fedstill.device_classes import Budget
from fedstill.errors import ReleaseError
from fedstill.soft_labels import Floats
from fedstill.tasks import Images

MANIFEST = "manifest.json"
# The second is what the class's format makes of the first: int8, unless the class has another one.
FLOAT_FILE, INT8_FILE = "student.fp32.onnx", "student.onnx"
TOLERANCE = 1e-4


class Normalization(Settings):
    """How a uint8 image becomes a model's input: (pixel * scale - mean) / std, by channel."""

    scale: float
    """Applied as a division by 1 / scale, so that all sides round alike."""
    mean: tuple[float, ...]
    """Of the scaled pixels, by channel."""
    std: tuple[float, ...]
    """Likewise."""


class Input(Settings):
    """A model's only input."""

    name: str
    shape: tuple[str | int, ...]
    """`batch`, channels, height and width."""
    type: Literal["float32"]
    normalization: Normalization


class Output(Settings):
    """A model's only output: logits."""

    name: str
    shape: tuple[str | int, ...]
    """`batch` and classes."""
    type: Literal["float32"]


class File(Settings):
    """A model file."""

    format: str
    """Its numeric format, in words."""
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Runtime(Settings):
    """What runs the models."""

    onnxruntime_minimum: str
    """The oldest ONNX Runtime that a device may use."""
    onnxruntime: str
    """The one that computed the self-test's expected outputs."""
    opset: int
    ir_version: int


class Expected(Settings):
    """What a model answers to the self-test's images."""

    exact: bool
    """Whether every operator with weights and every activation is an integer: the same ONNX Runtime must then give the
    same bits on any processor."""
    tolerance: float = Field(default=TOLERANCE, ge=0, le=0.1)
    """Where it is not exact: how far a logit may be from the expected one, as a share of the largest."""
    logits: tuple[tuple[float, ...], ...]
    """Of one image at a time `[images, classes]`."""

    def values(self) -> Floats:
        """Return the logits `[images, classes]`."""
        return np.array(self.logits, dtype=np.float32)


class SelfTest(Settings):
    """Images, all from the public proxy set, and what each model answers to them."""

    images: str
    """Base64 of uint8 pixels in C order."""
    shape: tuple[int, int, int, int]
    """Images, channels, height, width."""
    expected: dict[str, Expected]
    """By file name."""

    def pixels(self) -> Images:
        """Return the images `[images, channels, height, width]`.

        Raises:
            ReleaseError: the bytes don't fit the shape.
        """
        try:
            content = np.frombuffer(base64.b64decode(self.images, validate=True), dtype=np.uint8)
            return content.reshape(self.shape)
        except ValueError as error:
            raise ReleaseError(f"{MANIFEST}: the self-test's images don't fit their shape") from error


class Parent(Settings):
    """The run that a release comes from."""

    run: str
    """Name of its folder."""
    scenario: str
    seed: int
    rounds: int
    commit: str | None = None
    """Of the code; None outside a checkout."""


class Description(Settings):
    """A release before it has a version: everything that its verification found out."""

    format_version: Literal[1] = 1
    device_class: str
    task: str
    student: str
    """Architecture."""
    label_names: tuple[str, ...]
    """Of the classes, in the order of the logits."""
    input: Input
    output: Output
    artifact: str
    """The file that a device runs unless its own benchmark finds another one faster."""
    files: dict[str, File]
    """The models by file name."""
    runtime: Runtime
    self_test: SelfTest
    budget: Budget = Budget()
    """What the release was allowed to cost; the devices that install it hold it to the same."""
    metrics: dict[str, Any]
    """What was measured when the release was verified."""


class Manifest(Description):
    """A release."""

    version: int = Field(ge=1)
    """Grows with every release of this installation for the device class."""
    parent: Parent


def read_manifest(content: bytes) -> Manifest:
    """Return the manifest in a file's content.

    Raises:
        ReleaseError: it is not one.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReleaseError(f"{MANIFEST}: {place}: {first['msg']}") from error
