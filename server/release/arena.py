"""What a microcontroller needs for activations: a static graph, all tensors int8, each kept until its last use."""

from pathlib import Path

import numpy as np
import onnx

# Their result takes the place of their input: fused into the operator before, or only another view of it.
IN_PLACE = {"Relu", "Clip", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


def activation_bytes(path: Path) -> int:
    """Return the most bytes that live at once while one sample runs through a float ONNX file, a byte per value."""
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    sizes = {
        value.name: int(np.prod([max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim]))
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {tensor.name for tensor in graph.initializer}
    place_of = {value.name: value.name for value in graph.input}
    last_use: dict[str, int] = {}
    for step, node in enumerate(graph.node):
        used = [place_of[name] for name in node.input if name in place_of]
        for name in node.output:
            place_of[name] = used[0] if node.op_type in IN_PLACE and used else name
        for name in (*used, *(place_of[name] for name in node.output)):
            last_use[name] = step
    peak, alive = 0, {value.name for value in graph.input}
    for step, node in enumerate(graph.node):
        alive |= {place_of[name] for name in node.output if name not in weights}
        peak = max(peak, sum(sizes.get(name, 0) for name in alive))
        alive = {name for name in alive if last_use.get(name, -1) > step}
    return peak
