"""Encoded images: in folders by class, beside a CSV file, or in parquet tables. Pillow decodes them."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from client.data.description import DataDescription
from client.data.labels import index_of
from fedstill.errors import DataError
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MODES = {1: "L", 3: "RGB"}
PILLOW = "encoded images need Pillow, which the extra edge brings: `pip install pillow` where Fedstill is installed"
PYARROW = (
    "parquet needs pyarrow, which is too much for small boards to be in the extra edge: `pip install pyarrow` where "
    "Fedstill is installed, or use another format"
)
NEEDS: Mapping[str, Mapping[str, str]] = {
    "folders": {"PIL": PILLOW},
    "csv": {"PIL": PILLOW},
    "parquet": {"pyarrow": PYARROW, "PIL": PILLOW},
}
"""What the formats of encoded images need, by the module's name, with what to say where it is not."""

Sample = tuple[bytes, Any, str]  # encoded image, label, where both were found


def lacking(form: str) -> list[str]:
    """Return what is not installed that a format of data needs, a line each."""
    return [hint for module, hint in NEEDS.get(form, {}).items() if find_spec(module) is None]


def from_folders(path: Path, description: DataDescription, task: Task) -> tuple[Images, Ints]:
    """Read a folder with a sub-folder of images for each class; other files and hidden ones are passed over.

    Raises:
        DataError: no sub-folders, one that is no class, or an image that can't be decoded.
    """
    if not path.is_dir():
        raise DataError(f"{path}: not a folder with a sub-folder for each class")
    folders = sorted(place for place in path.iterdir() if place.is_dir() and not place.name.startswith("."))
    for folder in folders:
        index_of(folder.name, task, folder)  # an empty one with a wrong name is a mistake too
    if not folders:
        raise DataError(f"{path}: no sub-folder here; each class needs one of its name")

    def samples() -> Iterator[Sample]:
        for folder in folders:
            for file in sorted(folder.rglob("*")):
                if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
                    yield _content(file), folder.name, str(file)

    return _decoded(samples(), description, task)


def from_csv(path: Path, description: DataDescription, task: Task) -> tuple[Images, Ints]:
    """Read a CSV file with a header, whose image column names files seen from its own folder.

    Raises:
        DataError: a column or a file is missing, an image can't be decoded, or a label is no class.
    """

    def samples() -> Iterator[Sample]:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                _has(rows.fieldnames or (), description, path)
                for row in rows:
                    name = row[description.image] or ""
                    yield _content(path.parent / name), row[description.label], f"{path}:{rows.line_num}"
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: can't be read as CSV: {error}") from error

    return _decoded(samples(), description, task)


def from_parquet(path: Path, description: DataDescription, task: Task) -> tuple[Images, Ints]:
    """Read a parquet file, or all of a folder; images are bytes, or as the Hugging Face hub stores them.

    Raises:
        DataError: a file or a column is missing, an image can't be decoded, or a label is no class.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{path}: {PYARROW}") from error
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no .parquet file here")

    def samples() -> Iterator[Sample]:
        for file in files:
            try:
                source = parquet.ParquetFile(file)
                _has(source.schema_arrow.names, description, file)
                for batch in source.iter_batches(batch_size=256, columns=[description.image, description.label]):
                    rows = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
                    for image, label in rows:
                        content = image.get("bytes") if isinstance(image, dict) else image
                        if not isinstance(content, bytes):
                            raise DataError(f"{file}: column {description.image!r} does not hold encoded images")
                        yield content, label, str(file)
            except (OSError, ArrowException) as error:
                raise DataError(f"{file}: can't be read as parquet: {error}") from error

    return _decoded(samples(), description, task)


def _has(columns: Iterable[str], description: DataDescription, place: Path) -> None:
    for name in (description.image, description.label):
        if name not in columns:
            raise DataError(f"{place}: no column {name!r}; there are: {', '.join(columns)}")


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(file)!r}: this can't be a file's name: {error}") from error


def _decoded(samples: Iterator[Sample], description: DataDescription, task: Task) -> tuple[Images, Ints]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError(f"{description.path}: {PILLOW}") from error
    channels, height, width = task.input_shape
    if channels not in MODES:
        raise DataError(f"task {task.name} has images of {channels} channels; encoded ones have 1 or 3: use npz")
    images, labels = [], []
    for content, label, place in samples:
        labels.append(index_of(label, task, place))
        try:
            with Image.open(io.BytesIO(content)) as opened:
                image = opened.convert(MODES[channels])
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{place}: the image can't be decoded: {error}") from error
        if image.size != (width, height):
            if not description.resize:
                raise DataError(
                    f"{place}: an image of {image.size[0]} x {image.size[1]} pixels, task {task.name} needs "
                    f"{width} x {height}; scale it, or set resize = true in the data's description"
                )
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.uint8)
        images.append(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
    stacked = np.stack(images) if images else np.zeros((0, *task.input_shape), dtype=np.uint8)
    return np.ascontiguousarray(stacked), np.array(labels, dtype=np.int64)
