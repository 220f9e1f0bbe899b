"""The file that describes a device's data, `data.toml`.

format = "folders"   # a sub-folder of images for each class; or "csv", "parquet", "npz"
path = "photos"      # seen from this file
"""

from pathlib import Path
from typing import Literal

from fedstill.config import Settings, parse, read_toml


class DataDescription(Settings):
    """What lies where."""

    format: Literal["folders", "csv", "parquet", "npz"]
    """`folders`: a sub-folder of images per class; `csv`: a table that names image files; `parquet`: tables that hold
    encoded images; `npz`: arrays of decoded images and labels."""
    path: str
    """The folder or file of what the device learns from."""
    test: str = ""
    """The folder or file of what it is measured on, of the same format; empty: it does not measure itself."""
    image: str = "image"
    """Column, or array, of the images."""
    label: str = "label"
    """Column, or array, of the labels: names of classes or their indices."""
    resize: bool = False
    """Whether images of another size are scaled to that of the task; otherwise they are refused."""


def read_description(path: Path) -> DataDescription:
    """Read a description; the paths in it become absolute.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong.
    """
    found = parse(DataDescription, read_toml(path), str(path))
    folder = path.resolve().parent
    test = str(folder / found.test) if found.test else ""
    return found.model_copy(update={"path": str(folder / found.path), "test": test})
