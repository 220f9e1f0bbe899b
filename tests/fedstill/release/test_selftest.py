"""The self-test, on small models made by hand and run in real child processes."""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedstill.errors import ReleaseError
from fedstill.learning import normalize
from fedstill.release.manifest import (
    INT8_FILE,
    Expected,
    File,
    Input,
    Manifest,
    Normalization,
    Output,
    Parent,
    Runtime,
    SelfTest,
    read_manifest,
)
from fedstill.release.model import normalized
from fedstill.release.selftest import ask, self_test
from simulations.sources import CIFAR10

NORMALIZATION = Normalization(scale=1 / 255, mean=(0.0,), std=(1.0,))
IMAGES = np.array([[[[255, 0]]], [[[0, 51]]]], dtype=np.uint8)
LOGITS = ((2.0, 0.0), (0.0, np.float32(0.2).item() * 2))


def write_model(path: Path, body: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    graph = helper.make_graph(
        body,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 1, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def doubler(path: Path, bias: float = 0.0) -> None:
    weights = [
        numpy_helper.from_array(np.eye(2, dtype=np.float32) * 2, "w"),
        numpy_helper.from_array(np.array([0, bias], dtype=np.float32), "b"),
    ]
    body = [helper.make_node("Flatten", ["image"], ["x"]), helper.make_node("Gemm", ["x", "w", "b"], ["logits"])]
    write_model(path, body, weights)


def endless(path: Path) -> None:
    """A loop that practically never ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Sin", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    weights = [
        numpy_helper.from_array(np.array(2**62, dtype=np.int64), "n"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("Loop", ["n", "go", "x"], ["logits"], body=body),
    ]
    write_model(path, nodes, weights)


def manifest(exact: bool = False, onnxruntime: str | None = None) -> Manifest:
    import onnxruntime as ort

    return Manifest(
        device_class="pi5",
        task="t",
        student="s",
        label_names=("a", "b"),
        input=Input(name="image", shape=("batch", 1, 1, 2), type="float32", normalization=NORMALIZATION),
        output=Output(name="logits", shape=("batch", 2), type="float32"),
        artifact=INT8_FILE,
        files={INT8_FILE: File(format="", bytes=1, sha256="0" * 64)},
        runtime=Runtime(
            onnxruntime_minimum="1.20", onnxruntime=onnxruntime or ort.__version__, opset=20, ir_version=10
        ),
        self_test=SelfTest(
            images=base64.b64encode(IMAGES.tobytes()).decode(),
            shape=(2, 1, 1, 2),
            expected={INT8_FILE: Expected(exact=exact, logits=LOGITS)},
        ),
        metrics={},
        version=1,
        parent=Parent(run="r", scenario="s", seed=0, rounds=1),
    )


def test_a_model_that_answers_as_it_should_passes_exactly(tmp_path: Path) -> None:
    doubler(tmp_path / INT8_FILE)
    answer = self_test(tmp_path, manifest(exact=True), INT8_FILE)
    assert answer.logits.tolist() == [list(row) for row in LOGITS]
    assert 20e6 < answer.peak_rss_bytes < 120e6


def test_a_tiny_difference_passes_unless_the_same_runtime_must_be_exact(tmp_path: Path) -> None:
    doubler(tmp_path / INT8_FILE, bias=1e-5)
    self_test(tmp_path, manifest(), INT8_FILE)
    self_test(tmp_path, manifest(exact=True, onnxruntime="0.1"), INT8_FILE)
    with pytest.raises(ReleaseError, match=r"logits differ by .*, expected none"):
        self_test(tmp_path, manifest(exact=True), INT8_FILE)


def test_a_wrong_answer_is_refused(tmp_path: Path) -> None:
    doubler(tmp_path / INT8_FILE, bias=1e-2)
    with pytest.raises(ReleaseError, match="tolerance 1e-04"):
        self_test(tmp_path, manifest(), INT8_FILE)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / INT8_FILE).write_bytes(b"not a model")
    with pytest.raises(ReleaseError, match="the runtime ended with code 1"):
        self_test(tmp_path, manifest(), INT8_FILE)


def test_a_model_that_hangs_is_refused_in_time(tmp_path: Path) -> None:
    endless(tmp_path / INT8_FILE)
    with pytest.raises(ReleaseError, match="no answer within 8 s"):
        self_test(tmp_path, manifest(), INT8_FILE, timeout=8)


def test_a_runtime_that_is_killed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a crash: an interpreter that dies of a signal takes only itself."""
    doubler(tmp_path / INT8_FILE)
    crash = tmp_path / "python"
    crash.write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV.value} $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ReleaseError, match=f"ended with code -{signal.SIGSEGV.value}"):
        self_test(tmp_path, manifest(), INT8_FILE)


def test_a_process_that_hangs_ends_even_where_whoever_asked_is_gone(tmp_path: Path) -> None:
    endless(tmp_path / INT8_FILE)
    request = {
        "model": str(tmp_path / INT8_FILE),
        "images": base64.b64encode(IMAGES.tobytes()).decode(),
        "shape": IMAGES.shape,
        "normalization": NORMALIZATION.model_dump(),
        "seconds": 1,
    }
    command = [sys.executable, "-m", "fedstill.release.probe"]
    done = subprocess.run(command, input=json.dumps(request), text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


def test_inputs_are_bit_for_bit_what_the_server_computes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    how = Normalization(scale=1 / 255, mean=CIFAR10.mean, std=CIFAR10.std)
    assert np.array_equal(normalized(images, how), normalize(images, CIFAR10).numpy())


def test_nothing_of_it_imports_torch_or_the_servers_tools() -> None:
    code = (
        "import sys, fedstill.release.selftest, fedstill.release.probe, fedstill.release.verify, fedstill.cli;"
        "print([name for name in ('torch', 'onnx', 'fsspec', 'flwr', 'grpc') if name in sys.modules])"
    )
    path = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_a_manifest_reads_back_and_a_damaged_one_is_one_line() -> None:
    written = manifest()
    assert read_manifest(written.model_dump_json().encode()) == written
    with pytest.raises(ReleaseError, match=r"manifest\.json: version: .*greater"):
        read_manifest(written.model_dump_json().replace('"version":1', '"version":0').encode())
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        read_manifest(b"{")


def test_images_that_do_not_fit_their_shape_are_refused() -> None:
    for images in ("AAA=", "%%%"):
        with pytest.raises(ReleaseError, match="don't fit their shape"):
            SelfTest(images=images, shape=(2, 1, 1, 2), expected={}).pixels()


def test_ask_needs_an_answer_for_each_image(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.array([[np.nan, 0], [0, 1]], dtype=np.float32), "w")]
    body = [helper.make_node("Flatten", ["image"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])]
    write_model(tmp_path / INT8_FILE, body, weights)
    with pytest.raises(ReleaseError, match="not a row of finite logits"):
        ask(tmp_path / INT8_FILE, IMAGES, NORMALIZATION, timeout=60)
