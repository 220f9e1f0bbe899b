"""Small signed folders: what signing, verification and the store need, without a model in them."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from fedstill.release.manifest import (
    FLOAT_FILE,
    INT8_FILE,
    Description,
    Expected,
    File,
    Input,
    Normalization,
    Output,
    Parent,
    Runtime,
    SelfTest,
)
from fedstill.release.verify import digest
from server.release.keys import Keys
from server.release.sign import sign_folder


def _describe(folder: Path, device_class: str = "pi5") -> Description:
    files = {}
    for name in (INT8_FILE, FLOAT_FILE):
        length, sha256 = digest(folder / name)
        files[name] = File(format="", bytes=length, sha256=sha256)
    return Description(
        device_class=device_class,
        task="digits",
        student="tiny",
        label_names=("a", "b"),
        input=Input(
            name="image",
            shape=("batch", 1, 1, 1),
            type="float32",
            normalization=Normalization(scale=1 / 255, mean=(0.5,), std=(0.5,)),
        ),
        output=Output(name="logits", shape=("batch", 2), type="float32"),
        artifact=INT8_FILE,
        files=files,
        runtime=Runtime(onnxruntime_minimum="1.20", onnxruntime="1.31.1", opset=20, ir_version=10),
        self_test=SelfTest(
            images=base64.b64encode(b"x").decode(),
            shape=(1, 1, 1, 1),
            expected={INT8_FILE: Expected(exact=True, logits=((0.0, 1.0),))},
        ),
        metrics={},
    )


def _make(folder: Path, keys: Keys, device_class: str = "pi5", content: bytes = b"model") -> Path:
    folder.mkdir()
    (folder / INT8_FILE).write_bytes(content * 300)
    (folder / FLOAT_FILE).write_bytes(b"float" + content * 900)
    sign_folder(folder, _describe(folder, device_class), Parent(run="run", scenario="digits", seed=0, rounds=1), keys)
    return folder


@pytest.fixture
def describe() -> Callable[..., Description]:
    """Returns the description of the models in a folder."""
    return _describe


@pytest.fixture
def make() -> Callable[..., Path]:
    """Makes a signed release in a new folder."""
    return _make
