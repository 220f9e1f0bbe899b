"""Export of a student to one clean ONNX file: BatchNorm folded, no external data, no trace of the exporting machine."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from fedstill.errors import ExportError
from fedstill.learning import normalize
from fedstill.release.manifest import Normalization
from fedstill.release.model import session
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task
from server.release.quiet import quiet

INPUT, OUTPUT = "image", "logits"
TOLERANCE = 1e-4  # of ONNX logits against torch's, relative to the largest logit


def normalization(task: Task) -> Normalization:
    """Return how samples of a task become a student's input."""
    return Normalization(scale=1 / 255, mean=task.mean, std=task.std)


def export(model: nn.Module, task: Task, path: Path) -> None:
    """Write `model` to `path` as ONNX that takes and returns float32 with a dynamic batch dimension.

    Raises:
        ExportError: the model has an operator that ONNX has not, or the graph keeps a BatchNormalization or needs a
            second file.
    """
    model.eval()
    example = torch.zeros(2, *task.input_shape)
    try:
        with quiet(), redirect_stdout(io.StringIO()), torch.no_grad():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                optimize=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{path.name}: this student can't be exported to ONNX: {_reason(error)}") from error
    assert program is not None
    proto = program.model_proto
    strip(proto)
    left = {node.op_type for node in proto.graph.node}
    if "BatchNormalization" in left:
        raise ExportError(f"{path.name}: a BatchNormalization was not folded into its convolution")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ExportError(f"{path.name}: the exporter put weights outside the file")
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _reason(error: BaseException) -> str:
    """Return the first line of what an error comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]


def strip(proto: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own machine: stack traces with local paths and source lines."""
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    parts: tuple[Any, ...] = (proto, graph, *graph.node, *graph.initializer, *values)
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    del proto.functions[:]
    del graph.value_info[:]
    graph.name = "student"
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"


def write_stripped(proto: onnx.ModelProto, target: Path) -> onnx.ModelProto:
    """Strip a model, write it to a file, equal models to equal bytes, and return it."""
    strip(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def torch_difference(model: nn.Module, path: Path, task: Task, images: Images) -> float:
    """Return the largest difference of the ONNX file's logits from torch's on real images, relative to the largest."""
    model.eval()
    batch = normalize(images, task)
    with torch.no_grad():
        expected: Floats = model(batch).numpy()
    got = session(path.read_bytes()).run([OUTPUT], {INPUT: batch.numpy()})[0]
    return float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))
