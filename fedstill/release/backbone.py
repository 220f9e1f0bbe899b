"""A backbone: a class student's int8 feature extractor in ONNX Runtime, with the head that stood on it.

One file, whose model takes images and gives two outputs: `features` `[batch, width]`, which come out of the student's
last quantized activation, and `head` `[width + 1, classes]`, the weights of the student's last layer, the bias in the
last row. What stands on the features is a matrix product, so a device can learn it without torch.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstill.errors import ReleaseError
from fedstill.release.model import normalized, session
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task

FEATURES, HEAD = "features", "head"
BLOCK = 64  # images at once: their activations fit a small board's memory


@dataclass(frozen=True)
class _Scaling:
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Backbone:
    """A loaded backbone.

    Args:
        content: of its file.
        task: whose images it takes.
        name: what to call it in errors.

    Attributes:
        head: that it came with `[width + 1, classes]`.

    Raises:
        ReleaseError: this is no backbone for the task.
    """

    def __init__(self, content: bytes, task: Task, name: str = "backbone") -> None:
        self._scaling = _Scaling(1 / 255, task.mean, task.std)
        self._name = name
        try:
            self._model = session(content)
            self._input = self._model.get_inputs()[0].name
            empty = np.zeros((1, *task.input_shape), dtype=np.float32)
            features, head = self._model.run([FEATURES, HEAD], {self._input: empty})
        except Exception as error:  # ONNX Runtime has no common class for what it finds wrong with a file
            raise ReleaseError(f"{name}: no backbone for task {task.name}: {error}".splitlines()[0]) from error
        width = features.shape[1] if features.ndim == 2 else 0
        if not width or head.shape != (width + 1, task.classes) or not np.isfinite(head).all():
            raise ReleaseError(f"{name}: a backbone with features {features.shape} and a head {head.shape}")
        self.head: Floats = head.astype(np.float32)

    def features(self, images: Images) -> Floats:
        """Return the features of uint8 images, a one after the last of each `[samples, width + 1]`.

        Raises:
            ReleaseError: they are not finite numbers.
        """
        parts = [np.zeros((0, len(self.head) - 1), dtype=np.float32)]
        for start in range(0, len(images), BLOCK):
            batch = normalized(images[start : start + BLOCK], self._scaling)
            parts += self._model.run([FEATURES], {self._input: batch})
        found = np.concatenate(parts).astype(np.float32)
        if not np.isfinite(found).all():
            raise ReleaseError(f"{self._name}: features that are no numbers")
        return np.concatenate([found, np.ones((len(found), 1), dtype=np.float32)], axis=1)


def open_backbone(path: Path, sha256: str, task: Task) -> Backbone:
    """Return the backbone in a file.

    Args:
        path: the file.
        sha256: of its content, in hexadecimal digits.
        task: whose images it takes.

    Raises:
        ReleaseError: it is another file, can't be read, or is no backbone for the task.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ReleaseError(f"{path}: this is not the run's backbone")
    return Backbone(content, task, path.name)
