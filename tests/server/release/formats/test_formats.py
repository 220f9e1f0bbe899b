"""What every numeric format promises, and what each does with students that it does not suit."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedstill.device_classes import NumericFormat
from fedstill.errors import ExportError
from fedstill.tasks import load_task
from server.release.checks import operators
from server.release.formats import FORMATS, Format, weight_kinds
from server.release.runtime import logits
from simulations.sources import load_digits

TASK = load_task("simulations.sources:DIGITS")
ARRAYS = load_digits(None)
# Mean differences as a share of the mean logit, for random weights: more than a trained student loses.
FAR = {"float32": 0.0, "float16": 0.01, "static-int8": 0.15, "dynamic-int8": 0.15, "int4": 0.5}
CALIBRATION, IMAGES = ARRAYS.train_images[:40], ARRAYS.test_images[:100]


def _save(path: Path, nodes: Sequence[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], flat: int) -> Path:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((0.2 * rng.standard_normal(shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [*weights, numpy_helper.from_array(np.array([-1, flat]), "flat")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def dense(path: Path) -> Path:
    """Write a student of two linear layers, as the exporter writes them."""
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "w", "b"], ["sum"], transB=1),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "head", "bias"], ["logits"], transB=1),
    ]
    return _save(path, nodes, {"w": (64, 64), "b": (64,), "head": (10, 64), "bias": (10,)}, 64)


def convolutional(path: Path) -> Path:
    """Write a student of a convolution and a linear head."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["sum"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["sum"], ["features"]),
        helper.make_node("Reshape", ["features", "flat"], ["places"]),
        helper.make_node("Gemm", ["places", "head", "bias"], ["logits"], transB=1),
    ]
    return _save(path, nodes, {"w": (16, 1, 3, 3), "b": (16,), "head": (10, 256), "bias": (10,)}, 256)


def test_there_is_a_format_for_every_name_that_settings_know() -> None:
    assert set(FORMATS) == set(get_args(NumericFormat))
    assert all(found.name == name for name, found in FORMATS.items())


@pytest.mark.parametrize("name", FORMATS)
class TestContract:
    """Holds for every format with a student that it suits."""

    @pytest.fixture
    def made(self, name: str, tmp_path: Path) -> tuple[Format, Path, Path]:
        source, target = dense(tmp_path / "float.onnx"), tmp_path / "made.onnx"
        FORMATS[name].write(source, target, TASK, CALIBRATION)
        return FORMATS[name], source, target

    def test_every_operator_with_weights_holds_them_in_its_numbers(self, made: tuple[Format, Path, Path]) -> None:
        kind, _, target = made
        held = weight_kinds(onnx.load(target))
        assert dict(held) == {kind.weights: 2}
        assert operators(held[kind.weights], held.total(), kind.weights).passed

    def test_it_answers_nearly_as_the_float_file_does(self, made: tuple[Format, Path, Path]) -> None:
        kind, source, target = made
        wanted, found = (logits(path.read_bytes(), TASK, IMAGES) for path in (source, target))
        assert np.abs(found - wanted).mean() <= FAR[kind.name] * np.abs(wanted).mean()

    def test_both_ends_stay_float32_with_a_dynamic_batch(self, made: tuple[Format, Path, Path]) -> None:
        graph = onnx.load(made[2]).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.elem_type == TensorProto.FLOAT
            assert value.type.tensor_type.shape.dim[0].dim_param
        assert logits(made[2].read_bytes(), TASK, IMAGES[:7], batch=3).shape == (7, 10)

    def test_it_is_no_larger_than_the_float_file(self, made: tuple[Format, Path, Path]) -> None:
        kind, source, target = made
        share = {"float32": 1.0, "float16": 0.6, "int4": 0.3}.get(kind.name, 0.5)
        assert target.stat().st_size <= share * source.stat().st_size

    def test_the_same_student_gives_the_same_bytes_and_its_source_stays(
        self, made: tuple[Format, Path, Path], tmp_path: Path
    ) -> None:
        kind, source, target = made
        before = source.read_bytes()
        proto = kind.write(source, tmp_path / "again.onnx", TASK, CALIBRATION)
        assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()
        assert proto == onnx.load(target)
        assert source.read_bytes() == before

    def test_a_student_that_it_does_not_suit_is_refused_without_a_file(self, name: str, tmp_path: Path) -> None:
        source, target = convolutional(tmp_path / "float.onnx"), tmp_path / "made.onnx"
        if name in ("dynamic-int8", "int4"):
            with pytest.raises(ExportError, match=f"{name} does not suit this student: it has 1 Conv, w"):
                FORMATS[name].write(source, target, TASK, CALIBRATION)
            assert not target.exists()
        else:
            assert weight_kinds(FORMATS[name].write(source, target, TASK, CALIBRATION)).total() == 2


@pytest.mark.parametrize("name", ["dynamic-int8", "float16", "int4"])
def test_a_student_without_weights_is_refused_because_nothing_would_change(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["image", "flat"], ["logits"])]
    with pytest.raises(ExportError, match=f"{name} (quantizes|changes) nothing here"):
        FORMATS[name].write(_save(tmp_path / "a.onnx", nodes, {}, 10), tmp_path / "b.onnx", TASK, CALIBRATION)


def test_a_product_of_two_activations_holds_no_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["pixels", "turned"], ["alike"]),
        helper.make_node("MatMul", ["alike", "w"], ["logits"]),
    ]
    assert dict(weight_kinds(onnx.load(_save(tmp_path / "a.onnx", nodes, {"w": (4, 10)}, 64)))) == {"float32": 1}


@pytest.mark.parametrize("name", get_args(NumericFormat))
def test_no_format_turns_on_the_log_of_other_libraries(name: str, tmp_path: Path) -> None:
    source = dense(tmp_path / "float.onnx")
    code = f"""
import logging
from pathlib import Path
from fedstill.tasks import load_task
from server.release.formats import FORMATS
from simulations.sources import load_digits
task, images = load_task("simulations.sources:DIGITS"), load_digits(None).train_images[:40]
FORMATS[{name!r}].write(Path({str(source)!r}), Path({str(tmp_path / "made.onnx")!r}), task, images)
print(logging.root.handlers, logging.root.level == logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]
