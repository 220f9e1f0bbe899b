"""Load a device's data as a description says, checked against the task of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.data.arrays import from_npz
from client.data.description import DataDescription
from client.data.images import from_csv, from_folders, from_parquet
from fedstill.errors import DataError
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task

Reader = Callable[[Path, DataDescription, Task], tuple[Images, Ints]]
READERS: Mapping[str, Reader] = {
    "folders": from_folders,
    "csv": from_csv,
    "parquet": from_parquet,
    "npz": from_npz,
}


@dataclass(frozen=True)
class Labelled:
    """Images with their labels: uint8 `[samples, channels, height, width]` and class indices `[samples]`."""

    images: Images
    labels: Ints


@dataclass(frozen=True)
class LocalData:
    """What a device has.

    Attributes:
        private: what it learns from.
        test: what it is measured on; may be empty.
    """

    private: Labelled
    test: Labelled


def load(description: DataDescription, task: Task) -> LocalData:
    """Load what a description names.

    Raises:
        DataError: a file is missing or can't be decoded, an image has another shape than the task's, or a label is
            none of its classes.
    """
    private = _read(description.path, description, task)
    if not len(private.labels):
        raise DataError(f"{description.path}: no sample here")
    empty = Labelled(np.zeros((0, *task.input_shape), dtype=np.uint8), np.zeros(0, dtype=np.int64))
    return LocalData(private, _read(description.test, description, task) if description.test else empty)


def _read(path: str, description: DataDescription, task: Task) -> Labelled:
    place = Path(path)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; the data's description names it")
    return Labelled(*READERS[description.format](place, description, task))
