"""Checks the data of a finished run before they are used again."""

from typing import Literal

import numpy as np

from fedstill.errors import DataError
from fedstill.tasks import Task
from simulations.shelf import Labelled, Shelf

Part = Literal["server", "guard", "proxy", "test"]


def check_assets(shelf: Shelf, task: Task, *names: Part) -> None:
    """Check that parts of a run's data are there and fit its task.

    Raises:
        DataError: one is missing, damaged or of another shape.
    """
    for name in names:
        try:
            part = getattr(shelf, name)
        except (EOFError, OSError, ValueError) as error:
            raise DataError(f"{shelf.folder}: {name} samples are damaged or missing: {error}") from error
        images, labels = (part.images, part.labels) if isinstance(part, Labelled) else (part, None)
        if images.ndim != 4 or images.shape[1:] != task.input_shape or images.dtype != np.uint8:
            raise DataError(
                f"{shelf.folder}: {name} images are {images.dtype} {list(images.shape)}, "
                f"expected uint8 [samples, {', '.join(map(str, task.input_shape))}]"
            )
        if labels is not None and labels.shape != (len(images),):
            raise DataError(f"{shelf.folder}: {name} labels are {list(labels.shape)}, expected [{len(images)}]")
