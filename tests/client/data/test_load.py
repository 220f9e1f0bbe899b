import csv
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from client.data import DataDescription, lacking, load, read_description
from fedstill.errors import ConfigError, DataError
from fedstill.tasks import Arrays, Images, Task

NAMES = ("cat", "dog", "owl")


def nothing(folder: Path | None) -> Arrays:
    raise AssertionError("a device loads its own data")


GREY = Task("grey", NAMES, (1, 4, 6), nothing)
COLOUR = Task("colour", NAMES, (3, 4, 6), nothing)


@pytest.fixture(params=[GREY, COLOUR], ids=["grey", "colour"])
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


def samples(task: Task) -> tuple[Images, list[str]]:
    images = np.random.default_rng(0).integers(0, 256, (5, *task.input_shape)).astype(np.uint8)
    return images, ["cat", "cat", "dog", "dog", "owl"]


def png(image: Images) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(content, "PNG")
    return content.getvalue()


def write(form: str, folder: Path, images: Images, labels: list[str]) -> str:
    """Write samples in one of the forms; return the path to name in the description."""
    if form == "folders":
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / "all" / label).mkdir(parents=True, exist_ok=True)
            (folder / "all" / label / f"{place}.png").write_bytes(png(image))
        return "all"
    if form == "csv":
        for place, image in enumerate(images):
            (folder / f"{place}.png").write_bytes(png(image))
        with (folder / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "label"], *([f"{n}.png", label] for n, label in enumerate(labels))])
        return "table.csv"
    if form == "parquet":
        rows = [{"bytes": png(image), "path": None} for image in images]
        numbers = [NAMES.index(label) for label in labels]  # as the hub stores them
        parquet.write_table(pyarrow.table({"image": rows, "label": numbers}), folder / "0.parquet")
        return "0.parquet"
    np.savez(folder / "all.npz", image=images, label=np.array(labels))
    return "all.npz"


FORMS = ["folders", "csv", "parquet", "npz"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form: str, task: Task, tmp_path: Path) -> None:
    images, labels = samples(task)
    path = write(form, tmp_path, images, labels)
    (tmp_path / "data.toml").write_text(f'format = "{form}"\npath = "{path}"\ntest = "{path}"\n')
    found = load(read_description(tmp_path / "data.toml"), task)
    for part in (found.private, found.test):
        assert np.array_equal(part.images, images)
        assert part.labels.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_a_label_that_is_no_class_is_refused_with_the_nearest_one(form: str, tmp_path: Path) -> None:
    if form == "parquet":
        table = pyarrow.table({"image": [{"bytes": png(samples(GREY)[0][0])}], "label": ["cats"]})
        parquet.write_table(table, tmp_path / "0.parquet")
        path = "0.parquet"
    else:
        images, labels = samples(GREY)
        path = write(form, tmp_path, images, ["cats", *labels[1:]])
    description = DataDescription(format=form, path=str(tmp_path / path))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"'cats' is no class of task grey; did you mean 'cat'"):
        load(description, GREY)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_another_size_is_refused_or_scaled_when_asked(form: str, tmp_path: Path) -> None:
    images, labels = samples(GREY)
    description = DataDescription(format=form, path=str(tmp_path / write(form, tmp_path, images, labels)))  # type: ignore[arg-type]
    larger = Task("larger", NAMES, (1, 8, 12), nothing)
    with pytest.raises(DataError, match="larger needs"):
        load(description, larger)
    if form != "npz":
        scaled = load(description.model_copy(update={"resize": True}), larger)
        assert scaled.private.images.shape == (5, 1, 8, 12)


@pytest.mark.parametrize(
    ("form", "module", "hint"),
    [("folders", "PIL", "Pillow"), ("csv", "PIL", "Pillow"), ("parquet", "pyarrow", "pip install pyarrow")],
)
def test_what_a_format_needs_and_is_not_installed_is_told(
    form: str, module: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = DataDescription(format=form, path=str(tmp_path / write(form, tmp_path, *samples(GREY))))  # type: ignore[arg-type]
    assert lacking(form) == []
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("client.data.images.find_spec", lambda name: None if name == module else name)
    (said,) = lacking(form)
    assert hint in said
    with pytest.raises(DataError, match=hint):
        load(description, GREY)


def test_arrays_need_nothing_else() -> None:
    assert lacking("npz") == []


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write("folders", tmp_path, *samples(GREY))
    damaged = tmp_path / "all" / "dog" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DataError, match=r"dog/2\.png: the image can't be decoded"):
        load(DataDescription(format="folders", path=str(tmp_path / "all")), GREY)


@pytest.mark.parametrize(("form", "name"), [("csv", "table.csv"), ("parquet", "0.parquet"), ("npz", "all.npz")])
def test_a_missing_column_is_told_with_those_that_are_there(form: str, name: str, tmp_path: Path) -> None:
    write(form, tmp_path, *samples(GREY))
    description = DataDescription(format=form, path=str(tmp_path / name), label="kind")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no (column|array) 'kind'; there are: image, label"):
        load(description, GREY)


@pytest.mark.parametrize("form", ["csv", "parquet", "npz"])
def test_a_file_of_another_form_is_refused(form: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x89\xff\x00 not a table" * 10)
    with pytest.raises(DataError, match="can't be read as"):
        load(DataDescription(format=form, path=str(tmp_path / "file")), GREY)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"single"])
def test_what_numpy_reads_otherwise_than_as_arrays_by_name_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    if content:
        with path.open("wb") as file:
            np.save(file, samples(GREY)[0])
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        load(DataDescription(format="npz", path=str(path)), GREY)


@pytest.mark.parametrize("damage", [{8: 99}, {6: 1}], ids=["compression", "encryption"])
def test_damage_that_looks_like_what_is_not_supported_is_refused(damage: dict[int, int], tmp_path: Path) -> None:
    path = tmp_path / write("npz", tmp_path, *samples(GREY))
    content = bytearray(path.read_bytes())
    for header, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):  # of the first file, and of the directory
        for place, value in damage.items():
            content[content.index(header) + place + shift] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        load(DataDescription(format="npz", path=str(path)), GREY)


def test_a_table_that_names_what_no_file_can_be_called_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,label\na\0b.png,cat\n")
    with pytest.raises(DataError, match=r"a\\x00b\.png': this can't be a file's name") as refused:
        load(DataDescription(format="csv", path=str(tmp_path / "table.csv")), GREY)
    assert str(refused.value).isprintable()


def test_a_digit_that_is_no_number_is_no_class(tmp_path: Path) -> None:
    images, labels = samples(GREY)
    path = tmp_path / write("npz", tmp_path, images, ["\u00b2", *labels[1:]])
    with pytest.raises(DataError, match="is no class of task grey"):
        load(DataDescription(format="npz", path=str(path)), GREY)


def test_nothing_there_and_nothing_in_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load(DataDescription(format="folders", path=str(tmp_path / "none")), GREY)
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no sample here"):
        load(DataDescription(format="folders", path=str(tmp_path / "empty")), GREY)


def test_a_wrong_key_of_the_description_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text('format = "npz"\npath = "x"\nimgae = "y"\n')
    with pytest.raises(ConfigError, match=r"imgae.*did you mean 'image'"):
        read_description(tmp_path / "data.toml")
