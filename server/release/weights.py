"""In which numbers an ONNX file holds the weights of its operators."""

from collections import Counter
from collections.abc import Collection
from typing import Literal

import onnx
from onnx import TensorProto

from fedstill.errors import ExportError

Kind = Literal["float32", "float16", "int8", "int4"]

# Operators whose second input is weights; a `MatMul` may multiply two activations instead.
WEIGHTED = ("Conv", "Gemm", "MatMul", "MatMulInteger", "ConvInteger")
INT4 = "MatMulNBits"
# Operators between stored numbers and their use that leave them what they are.
_HANDING_ON = ("DequantizeLinear", "Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_KINDS: dict[int, Kind] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
}


def weight_kinds(proto: onnx.ModelProto) -> Counter[Kind]:
    """Return how many operators hold their weights in which numbers; a product of two activations holds none."""
    held = {tensor.name: _KINDS[tensor.data_type] for tensor in proto.graph.initializer if tensor.data_type in _KINDS}
    found: Counter[Kind] = Counter()
    for node in proto.graph.node:
        if node.op_type in _HANDING_ON and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
        elif node.op_type == INT4:
            found["int4"] += 1
        elif node.op_type in WEIGHTED and (node.input[1] in held or node.op_type != "MatMul"):
            found[held.get(node.input[1], "float32")] += 1
    return found


def require_only(proto: onnx.ModelProto, allowed: Collection[str], name: str, why: str) -> None:
    """Make sure that all operators with weights are among those that a format quantizes, and that there is one.

    Args:
        proto: a float model.
        allowed: types of operators that the format quantizes.
        name: of the format.
        why: it leaves the others alone.

    Raises:
        ExportError: others hold weights too, or none does.
    """
    constant = {tensor.name for tensor in proto.graph.initializer}
    holding = Counter(
        node.op_type for node in proto.graph.node if node.op_type in WEIGHTED and node.input[1] in constant
    )
    others = {kind: count for kind, count in sorted(holding.items()) if kind not in allowed}
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in others.items())
        raise ExportError(f"{name} does not suit this student: it has {listed}, {why}")
    if not holding:
        raise ExportError(f"{name} quantizes nothing here: no operator of this student has weights")
