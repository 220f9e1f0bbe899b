"""A task: what is learned, from which data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedstill.errors import ConfigError, DataError
from fedstill.loading import load_object
from fedstill.soft_labels import Ints

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Arrays:
    """A task's data in memory or mapped from disk.

    Attributes:
        train_images: `[train, channels, height, width]`.
        train_labels: class indices `[train]`.
        test_images: never trained on, never in the proxy set `[test, channels, height, width]`.
        test_labels: class indices `[test]`.
        train_groups: whose each training sample is, such as its writer `[train]`; None: nobody knows.
    """

    train_images: Images
    train_labels: Ints
    test_images: Images
    test_labels: Ints
    train_groups: Ints | None = None


@dataclass(frozen=True)
class Task:
    """A classification task on images.

    Attributes:
        name: its name in tables and manifests.
        label_names: names of the classes, in the order of their indices.
        input_shape: channels, height and width of an image in pixels.
        load: returns the data; takes the folder of `--data-dir` or None.
        mean: by channel, of pixels scaled to [0, 1]; fixed constants, never statistics of private data.
        std: by channel, likewise.
        flip: whether mirrored images keep their label (augmentation).
        shift: pixels by which images may be shifted in augmentation.
        pictures: whether samples are pictures; else their bytes are codes, which no disturbance may touch.
    """

    name: str
    label_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    load: Callable[[Path | None], Arrays]
    mean: tuple[float, ...] = field(default=(0.5,))
    std: tuple[float, ...] = field(default=(0.5,))
    flip: bool = False
    shift: int = 0
    pictures: bool = True

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    def check(self, arrays: Arrays) -> None:
        """Check that data fit this task.

        Raises:
            DataError: wrong image shape, wrong type, labels outside the label space, or images without labels.
        """
        for part, images, labels in (
            ("train", arrays.train_images, arrays.train_labels),
            ("test", arrays.test_images, arrays.test_labels),
        ):
            if images.ndim != 4 or images.shape[1:] != self.input_shape or images.dtype != np.uint8:
                raise DataError(
                    f"task {self.name}: {part} images are {images.dtype} {list(images.shape)}, "
                    f"expected uint8 [samples, {', '.join(map(str, self.input_shape))}]"
                )
            if len(images) != len(labels):
                raise DataError(f"task {self.name}: {len(images)} {part} images but {len(labels)} labels")
            if len(labels) and not (labels.min() >= 0 and labels.max() < self.classes):
                raise DataError(f"task {self.name}: {part} labels outside 0..{self.classes - 1}")


def load_task(reference: str) -> Task:
    """Return the task that `module:object` or `file.py:object` names.

    Raises:
        ConfigError: the reference names something else.
    """
    task = load_object(reference)
    if not isinstance(task, Task):
        raise ConfigError(f"{reference!r} is not a fedstill.tasks.Task")
    return task
