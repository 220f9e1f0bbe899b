import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import datasets
import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from fedstill.errors import DataError
from fedstill.text import encode
from simulations.sources import CIFAR10, MNIST, SST2, load_cifar10, load_digits, load_mnist, load_sst2


def write_hub(folder: Path, repository: str, config: str, column: str, shape: tuple[int, ...], seed: int = 0) -> None:
    """Write small parquet files in the layout of the Hugging Face hub."""
    rng = np.random.default_rng(seed)
    target = folder / repository / config
    target.mkdir(parents=True)
    for split, count in (("train", 30), ("test", 10)):
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]
        features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
        rows = {column: images, "label": [place % 10 for place in range(count)]}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(str(target / f"{split}-00000-of-00001.parquet"))


def test_digits_come_with_scikit_learn_and_fit_their_task() -> None:
    arrays = load_digits(None)
    assert len(arrays.train_labels) + len(arrays.test_labels) == 1797
    assert arrays.train_images.shape[1:] == (1, 8, 8)
    assert arrays.train_images.max() == 255
    theirs = sklearn_digits()
    assert np.array_equal(arrays.train_images[:4, 0], np.rint(theirs.images[:4] * (255 / 16)))
    assert np.array_equal(arrays.test_labels, theirs.target[4::5])


@pytest.mark.parametrize("found", [None, ModuleSpec("sklearn", None, origin="/nowhere/__init__.py")])
def test_digits_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch, found: ModuleSpec | None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(DataError, match="scikit-learn"):
        load_digits(None)


def test_parquet_files_in_hub_layout_are_read_with_pixels_and_labels(tmp_path: Path) -> None:
    write_hub(tmp_path, "ylecun/mnist", "mnist", "image", (28, 28))
    arrays = load_mnist(tmp_path)
    MNIST.check(arrays)
    assert arrays.train_labels.tolist() == [place % 10 for place in range(30)]
    expected = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    assert np.array_equal(arrays.train_images[0, 0], expected)


def test_colour_images_keep_their_channels_first(tmp_path: Path) -> None:
    write_hub(tmp_path, "uoft-cs/cifar10", "plain_text", "img", (32, 32, 3))
    arrays = load_cifar10(tmp_path)
    CIFAR10.check(arrays)
    expected = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(arrays.train_images[0], expected.transpose(2, 0, 1))


def test_a_second_read_maps_the_decoded_pixels_and_new_files_are_read_anew(tmp_path: Path) -> None:
    write_hub(tmp_path / "a", "ylecun/mnist", "mnist", "image", (28, 28), seed=1)
    write_hub(tmp_path / "b", "ylecun/mnist", "mnist", "image", (28, 28), seed=2)
    first, again, other = load_mnist(tmp_path / "a"), load_mnist(tmp_path / "a"), load_mnist(tmp_path / "b")
    assert np.array_equal(first.train_images, again.train_images)
    assert not np.array_equal(first.train_images, other.train_images)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ylecun/mnist/mnist: no train-\*\.parquet"):
        load_mnist(tmp_path)


def test_a_corrupt_file_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "ylecun/mnist/mnist"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}-00000-of-00001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="can't be read") as caught:
        load_mnist(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("FEDSTILL_DATA_DIR" not in os.environ, reason="FEDSTILL_DATA_DIR names no real data")
def test_real_mnist_has_its_published_size() -> None:
    arrays = load_mnist(Path(os.environ["FEDSTILL_DATA_DIR"]))
    MNIST.check(arrays)
    assert (len(arrays.train_labels), len(arrays.test_labels)) == (60_000, 10_000)
    assert np.bincount(arrays.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_film_reviews_become_coded_words_and_the_validation_set_is_the_test_set(tmp_path: Path) -> None:
    target = tmp_path / "stanfordnlp/sst2/data"
    target.mkdir(parents=True)
    for split, rows in (("train", ["a film", "no"]), ("validation", ["a film of note"])):
        table = {"idx": list(range(len(rows))), "sentence": rows, "label": [1, 0][: len(rows)]}
        datasets.Dataset.from_dict(table).to_parquet(str(target / f"{split}-00000-of-00001.parquet"))
    arrays = load_sst2(tmp_path)
    SST2.check(arrays)
    assert arrays.train_labels.tolist() == [1, 0]
    assert np.array_equal(arrays.test_images, encode(["a film of note"], 48))
