"""The built-in tasks and where their data come from."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedstill.errors import DataError
from fedstill.files import write_folder
from fedstill.soft_labels import Ints
from fedstill.tasks import Arrays, Images, Task
from fedstill.text import encode

TEN_DIGITS = tuple(str(digit) for digit in range(10))


def load_digits(data_dir: Path | None) -> Arrays:
    """Return the 1,797 handwritten digits that scikit-learn carries; a fixed fifth of them is the test set.

    Its own loader imports scipy and pandas, which takes as long as torch.

    Raises:
        DataError: it is not installed, or carries them no more where it did.
    """
    found = importlib.util.find_spec("sklearn")  # imports nothing
    if found is None or found.origin is None:
        raise DataError("the digits are scikit-learn's, which is not installed: pip install 'fedstill[sim]'")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.int64)  # 64 pixels from 0 to 16, then the label
    except OSError as error:
        raise DataError(f"{path}: scikit-learn's digits can't be read here: {error.strerror}") from error
    images = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = rows[:, -1]
    test = np.arange(len(labels)) % 5 == 4
    return Arrays(images[~test], labels[~test], images[test], labels[test])


def _decode(split: Any, image_column: str, mode: str) -> tuple[Images, Ints]:
    images = np.stack([np.asarray(image.convert(mode)) for image in split[image_column]])
    if images.ndim == 3:
        images = images[:, :, :, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), np.asarray(split["label"], dtype=np.int64)


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fedstill"


def _files_of(repository: str, config: str, splits: tuple[str, str], data_dir: Path) -> dict[str, list[Path]]:
    folder = data_dir / repository / config
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in splits}
    for split, found in files.items():
        if not found:
            raise DataError(
                f"{folder}: no {split}-*.parquet there; --data-dir takes the layout of the Hugging Face hub"
            )
    return files


def load_hub(repository: str, config: str, image_column: str, mode: str, data_dir: Path | None) -> Arrays:
    """Load an image data set of the Hugging Face hub, from parquet files below `data_dir` or else by name.

    Decoded pixels are kept in the user's cache folder and mapped from there, so that workers share them.

    Args:
        repository: for example `ylecun/mnist`.
        config: folder of its parquet files.
        image_column: name of the image column.
        mode: pillow's mode of the images, `L` or `RGB`.
        data_dir: folder that holds `repository`; None: ask the hub.

    Raises:
        DataError: files are missing or corrupt, or the hub can't be reached.
    """

    def decode(split: Any) -> tuple[Images, Ints]:
        return _decode(split, image_column, mode)

    return load_splits(repository, config, ("train", "test"), (image_column, mode), decode, data_dir)


def load_splits(
    repository: str,
    config: str,
    splits: tuple[str, str],
    how: tuple[Any, ...],
    decode: Callable[[Any], tuple[Images, Ints]],
    data_dir: Path | None,
) -> Arrays:
    """Load a data set of the Hugging Face hub, decoded once and then mapped from the user's cache folder.

    Args:
        repository: for example `ylecun/mnist`.
        config: folder of its parquet files.
        splits: that train and that test; both have labels.
        how: what `decode` depends on, so that another way gets another place in the cache.
        decode: makes samples and labels of a split of the `datasets` library.
        data_dir: folder that holds `repository`; None: ask the hub.

    Raises:
        DataError: files are missing or corrupt, or the hub can't be reached.
    """
    files = None if data_dir is None else _files_of(repository, config, splits, data_dir)
    key = hashlib.sha256(repr((repository, *how, _fingerprint(files))).encode()).hexdigest()[:16]
    folder = _cache_root() / f"{repository.replace('/', '-')}-{key}"
    if not folder.is_dir():
        found = _read_splits(repository, files)
        try:
            decoded = {name: decode(found[split]) for name, split in zip(("train", "test"), splits, strict=True)}
        except Exception as error:
            raise DataError(f"{data_dir or 'hub'}: {repository} can't be decoded: {error}") from error

        def fill(target: Path) -> None:
            for name, (images, labels) in decoded.items():
                np.save(target / f"{name}-images.npy", images)
                np.save(target / f"{name}-labels.npy", labels)

        write_folder(folder, fill)
    parts = [
        np.load(folder / f"{name}-{what}.npy", mmap_mode="r")
        for name in ("train", "test")
        for what in ("images", "labels")
    ]
    return Arrays(*parts)


def _fingerprint(files: dict[str, list[Path]] | None) -> list[tuple[str, int, int]]:
    paths = [path for found in (files or {}).values() for path in found]
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _read_splits(repository: str, files: dict[str, list[Path]] | None) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        if files is None:
            return datasets.load_dataset(repository)
        named = {split: [str(path) for path in found] for split, found in files.items()}
        cache = _cache_root() / "parquet"
        return datasets.load_dataset("parquet", data_files=named, cache_dir=str(cache))
    except Exception as error:
        if files is None:
            raise DataError(f"the hub's {repository} can't be loaded ({error}); give --data-dir") from error
        place = files["train"][0].parent
        raise DataError(f"{place}: the parquet files can't be read: {error}".splitlines()[0]) from error


def load_mnist(data_dir: Path | None) -> Arrays:
    """Return MNIST (LeCun et al. 1998): 60,000 and 10,000 grey images of 28 x 28."""
    return load_hub("ylecun/mnist", "mnist", "image", "L", data_dir)


def load_cifar10(data_dir: Path | None) -> Arrays:
    """Return CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour images of 32 x 32."""
    return load_hub("uoft-cs/cifar10", "plain_text", "img", "RGB", data_dir)


SST2_WORDS = 48


def load_sst2(data_dir: Path | None) -> Arrays:
    """Return SST-2 (Socher et al. 2013): 67,349 phrases of film reviews; 872 sentences are the test set.

    These are its validation set: the labels of its own test set are not public.
    """

    def decode(split: Any) -> tuple[Images, Ints]:
        return encode(split["sentence"], SST2_WORDS), np.asarray(split["label"], dtype=np.int64)

    return load_splits("stanfordnlp/sst2", "data", ("train", "validation"), ("words", SST2_WORDS), decode, data_dir)


CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = Task("digits", TEN_DIGITS, (1, 8, 8), load_digits, mean=(0.3,), std=(0.38,))
MNIST = Task("mnist", TEN_DIGITS, (1, 28, 28), load_mnist, mean=(0.1307,), std=(0.3081,))
# Shifted by a pixel a digit is the same digit: for scenarios whose students see few labelled samples.
SHIFTED_MNIST = replace(MNIST, shift=1)
CIFAR10 = Task(
    "cifar10",
    CIFAR_NAMES,
    (3, 32, 32),
    load_cifar10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
    flip=True,
    shift=4,
)
SST2 = Task(
    "sst2", ("negative", "positive"), (2, 1, SST2_WORDS), load_sst2, mean=(0.0, 0.0), std=(1.0, 1.0), pictures=False
)
