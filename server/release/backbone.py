"""The backbone of a device class: its student, exported and quantized as for a release, cut before its last layer."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from fedstill.errors import ExportError
from fedstill.release.backbone import FEATURES, HEAD
from fedstill.tasks import Images, Task
from server.release.export import OUTPUT, export, strip
from server.release.quantize import quantize


def backbone(model: nn.Module, task: Task, calibration: Images) -> bytes:
    """Return the content of a backbone's file (`fedstill.release.backbone`).

    Args:
        model: a student whose last layer is linear.
        task: what it was trained for.
        calibration: real samples of the task's domain `[samples, ...]`.

    Raises:
        ExportError: the student's last layer is not linear.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, int8 = Path(folder) / "whole.onnx", Path(folder) / "int8.onnx"
        export(model, task, whole)
        head = _head(onnx.load(whole), task)
        quantized = quantize(whole, int8, task, calibration)
    last = next(node for node in reversed(quantized.graph.node) if node.op_type == "Gemm")
    graph = quantized.graph
    graph.node.append(onnx.helper.make_node("Identity", [last.input[0]], [FEATURES]))
    graph.node.append(onnx.helper.make_node("Identity", ["own_head"], [HEAD]))
    graph.initializer.append(numpy_helper.from_array(head, "own_head"))
    del graph.output[:]
    kind = onnx.TensorProto.FLOAT
    graph.output.append(onnx.helper.make_tensor_value_info(FEATURES, kind, ["batch", len(head) - 1]))
    graph.output.append(onnx.helper.make_tensor_value_info(HEAD, kind, list(head.shape)))
    _prune(graph)
    strip(quantized)
    onnx.checker.check_model(quantized)
    return bytes(quantized.SerializeToString(deterministic=True))


def _prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes and values that no output of a graph depends on."""
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):  # they are in the order of their computation
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    values = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(values)


def _head(proto: onnx.ModelProto, task: Task) -> np.ndarray:
    """Return the last layer of an exported student `[width + 1, classes]`."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    last = next((node for node in proto.graph.node if OUTPUT in node.output), None)
    if last is None or last.op_type != "Gemm" or last.input[1] not in values:
        raise ExportError("the student's last layer is not linear: it can't be a backbone")
    transposed = any(part.name == "transB" and part.i for part in last.attribute)
    weights = values[last.input[1]].T if transposed else values[last.input[1]]
    bias = values[last.input[2]] if len(last.input) > 2 else np.zeros(task.classes)
    return np.concatenate([weights, bias[None]]).astype(np.float32)
