import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedstill.errors import ExportError
from fedstill.release.manifest import Normalization
from fedstill.release.model import normalized, one_by_one, session
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task, load_task
from server.release.c_code.check import FLAGS, compile_and_run, compiler
from server.release.c_code.layers import read
from server.release.c_code.write import SOURCE, arena_bytes, write
from server.release.quantize import quantize

HOW = Normalization(scale=1 / 255, mean=(0.4, 0.5), std=(0.2, 0.3))
CC = compiler()
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler on this machine")


def graph(tail: str, rng: np.random.Generator) -> onnx.ModelProto:
    """A float student of two input channels of 9x7 pixels: every operator and form that the C code knows."""
    weights: dict[str, np.ndarray] = {
        "w0": rng.normal(size=(5, 2, 3, 3)),
        "b0": rng.normal(size=5),
        "w1": rng.normal(size=(5, 1, 5, 5)),
        "b1": rng.normal(size=5),
        "w2": rng.normal(size=(6, 5, 1, 1)),
        "b2": rng.normal(size=6),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], kernel_shape=[5, 5], pads=[2, 1, 2, 3], group=5),
        helper.make_node("MaxPool", ["c1"], ["p1"], kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 0, 1]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], kernel_shape=[1, 1], strides=[1, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
    ]
    if tail == "mean":
        weights |= {"axes": np.array([2, 3]), "w3": rng.normal(size=(4, 6)), "b3": rng.normal(size=4)}
        nodes.append(helper.make_node("ReduceMean", ["r2", "axes"], ["m"], keepdims=0))
    else:
        weights |= {"w3": rng.normal(size=(4, 48)), "b3": rng.normal(size=4)}
        nodes.append(helper.make_node("Flatten", ["r2"], ["m"]))
    nodes.append(helper.make_node("Gemm", ["m", "w3", "b3"], ["logits"], transB=1))
    kept = {name: array.astype(np.int64 if name == "axes" else np.float32) for name, array in weights.items()}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "student",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 9, 7])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(array, name) for name, array in kept.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def quantized(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    digits: Task = load_task("simulations.sources:DIGITS")
    task = replace(digits, input_shape=(2, 9, 7), mean=HOW.mean, std=HOW.std)
    onnx.save(proto, folder / "student.fp32.onnx")
    return quantize(folder / "student.fp32.onnx", folder / "student.onnx", task, pictures(60, seed=1))


def pictures(count: int, seed: int) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 9, 7), dtype=np.uint8)


def answers(proto: onnx.ModelProto, images: Images) -> Floats:
    return one_by_one(session(proto.SerializeToString()), normalized(images, HOW))


@pytest.fixture(scope="module", params=["mean", "flatten"])
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return quantized(graph(request.param, np.random.default_rng(0)), tmp_path_factory.mktemp("student"))


@needs_compiler
def test_the_c_code_gives_the_bits_of_onnx_runtime(student: onnx.ModelProto, tmp_path: Path) -> None:
    assert CC is not None
    images = pictures(300, seed=2)
    expected = answers(student, images)
    assert len(np.unique(expected)) > 30
    arena = write(student, tmp_path, HOW, ("a", "b", "c", "d"), (images, expected))
    found = compile_and_run(tmp_path, CC)
    assert arena <= found.ram_bytes < arena + 16  # alignment
    assert sum(layer.weights.values.size for layer in read(student).layers if layer.weights) < found.flash_bytes


@needs_compiler
def test_it_calls_nothing_so_it_has_no_heap(student: onnx.ModelProto, tmp_path: Path) -> None:
    assert CC is not None
    images = pictures(2, seed=2)
    write(student, tmp_path, HOW, ("a", "b", "c", "d"), (images, answers(student, images)))
    compiled = tmp_path / "student.o"
    subprocess.run([*CC, *FLAGS, "-c", tmp_path / SOURCE, "-o", compiled], check=True)
    told = subprocess.run(["nm", "--undefined-only", compiled], capture_output=True, text=True, check=True)
    assert set(told.stdout.split()) - {"U"} <= {"memcpy", "memset"}  # what a compiler makes of a loop


@needs_compiler
@pytest.mark.parametrize("flags", [("-O3", "-Wextra", "-pedantic"), ("-O0", "-fsanitize=undefined,address")])
def test_it_needs_no_leniency_and_reads_and_writes_nothing_out_of_bounds(
    student: onnx.ModelProto, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert CC is not None
    images = pictures(20, seed=3)
    write(student, tmp_path, HOW, ("a", "b", "c", "d"), (images, answers(student, images)))
    command = [*CC, *FLAGS, *flags, "student.c", "student_selftest.c", "-o", "run"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "run"], check=True, capture_output=True, text=True).stdout.startswith("0 of 80")


@needs_compiler
def test_a_wrong_weight_fails_the_self_test(student: onnx.ModelProto, tmp_path: Path) -> None:
    assert CC is not None
    images = pictures(20, seed=4)
    write(student, tmp_path, HOW, ("a", "b", "c", "d"), (images, answers(student, images)))
    source = tmp_path / SOURCE
    before, rest = source.read_text().split("factors_0[5] = {", 1)
    source.write_text(before + "factors_0[5] = {2.0f * " + rest)
    with pytest.raises(ExportError, match=r"C code: selftest: \d+ of 80 logits differ"):
        compile_and_run(tmp_path, CC)


@needs_compiler
def test_label_names_cannot_break_out_of_their_string(student: onnx.ModelProto, tmp_path: Path) -> None:
    assert CC is not None
    images = pictures(2, seed=5)
    names = ('"};int x;//', "??/", "\\", "naïve\n1")
    write(student, tmp_path, HOW, names, (images, answers(student, images)))
    show = "int main(void) {for (int i = 0; i < 4; i++) puts(student_labels[i]);}"
    (tmp_path / "show.c").write_text(f'#include "student.h"\n#include <stdio.h>\n{show}\n')
    subprocess.run([*CC, *FLAGS, "student.c", "show.c", "-o", "show"], cwd=tmp_path, check=True)
    shown = subprocess.run([tmp_path / "show"], check=True, capture_output=True, text=True).stdout
    assert shown == "".join(f"{name}\n" for name in names)


def test_the_arena_holds_the_largest_neighbours(student: onnx.ModelProto) -> None:
    network = read(student)
    assert arena_bytes(network) == 5 * 9 * 7 + 5 * 9 * 7
    assert [layer.kind for layer in network.layers[:4]] == ["conv", "depthwise", "max_pool", "conv"]


def test_what_is_no_chain_of_known_operators_is_refused_by_name(tmp_path: Path) -> None:
    proto = graph("mean", np.random.default_rng(0))
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Sigmoid"
    with pytest.raises(ExportError, match="C code: operator Sigmoid is not known"):
        read(quantized(proto, tmp_path))


def test_a_form_of_an_operator_that_is_not_known_is_refused() -> None:
    nodes = []
    for before, after in (("image", "x"), ("mean", "logits")):
        nodes.append(helper.make_node("QuantizeLinear", [before, "step", "zero"], [f"{after}-q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{after}-q", "step", "zero"], [after]))
    nodes.insert(2, helper.make_node("ReduceMean", ["x"], ["mean"]))  # over everything: it names no axes
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 2])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    scale = [
        numpy_helper.from_array(np.array(0.1, dtype=np.float32), "step"),
        numpy_helper.from_array(np.array(0, dtype=np.uint8), "zero"),
    ]
    with pytest.raises(ExportError, match="C code: an operator has a form that is not known"):
        read(helper.make_model(helper.make_graph(nodes, "g", [given], [found], scale)))


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="C code: operator Conv takes image before it is quantized"):
        read(graph("mean", np.random.default_rng(0)))
    assert not any(tmp_path.iterdir())


@needs_compiler
def test_the_compiler_is_that_of_cc_with_its_options_or_what_is_called_cc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cc = shutil.which("cc")
    for named, expected in (("", [cc]), ("cc -m64 '-DA=b c'", [cc, "-m64", "-DA=b c"]), ("no-such-compiler", [cc])):
        monkeypatch.setenv("CC", named)
        assert compiler() == expected
    monkeypatch.delenv("CC")
    assert compiler() == [cc]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler() is None
