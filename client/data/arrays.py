"""Data that are decoded already: an .npz file with an array of images and one of labels."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from client.data.description import DataDescription
from client.data.labels import index_of
from fedstill.errors import DataError
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task

# TypeError: a single array, as numpy.save writes it, is no context manager. RuntimeError: damage that zipfile takes for
# encryption, or (NotImplementedError) for a compression that it does not know.
UNREADABLE = (OSError, EOFError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def from_npz(path: Path, description: DataDescription, task: Task) -> tuple[Images, Ints]:
    """Read images, uint8 `[samples, channels, height, width]` or grey `[samples, height, width]`, and their labels.

    Raises:
        DataError: the file can't be read, an array is missing or has the wrong form, or a label is no class.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in (description.image, description.label) if name in arrays.files}
            names = ", ".join(arrays.files)
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read as .npz: {error}") from error
    for name in (description.image, description.label):
        if name not in found:
            raise DataError(f"{path}: no array {name!r}; there are: {names}")
    images, labels = found[description.image], found[description.label]
    if images.ndim == 3:
        images = images[:, None]
    if images.dtype != np.uint8 or images.shape[1:] != task.input_shape:
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)}, task {task.name} needs uint8 "
            f"[samples, {', '.join(map(str, task.input_shape))}]"
        )
    if labels.shape != (len(images),):
        raise DataError(f"{path}: {len(images)} images but labels of shape {list(labels.shape)}")
    return images, np.array([index_of(label, task, path) for label in labels.tolist()], dtype=np.int64)
