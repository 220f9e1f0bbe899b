"""Static int8 quantization (QDQ, activations u8, weights s8 per channel), calibrated on real proxy samples."""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from fedstill.learning import normalize
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task
from server.release.export import INPUT, write_stripped
from server.release.quiet import quiet
from server.release.weights import weight_kinds


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration samples one by one."""

    def __init__(self, batch: Floats) -> None:
        self._rows = iter(batch)

    def get_next(self) -> dict[str, Floats] | None:
        row = next(self._rows, None)
        return None if row is None else {INPUT: row[None]}


def quantize(source: Path, target: Path, task: Task, calibration: Images) -> onnx.ModelProto:
    """Write the int8 form of `source` to `target` and return it.

    Args:
        source: fp32 ONNX file.
        target: where to write.
        task: for the normalization of its inputs.
        calibration: real samples of the task's domain; random noise costs accuracy `[samples, ...]`.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(normalize(calibration, task).numpy()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    proto = onnx.load(target)
    return write_stripped(proto, target)


def count_quantized(proto: onnx.ModelProto) -> tuple[int, int]:
    """Return how many operators have int8 weights, and how many have weights at all."""
    found = weight_kinds(proto)
    return found["int8"], found.total()


# Operators that move values without computing new ones.
MOVING = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "MaxPool"}


def all_integer(proto: onnx.ModelProto) -> bool:
    """Return whether every computed activation is quantized again at once, the logits included.

    ONNX Runtime then computes in integers, and gives the same bits on any processor.
    """
    users: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    quantizing = {"QuantizeLinear", "DequantizeLinear", "Constant", *MOVING}
    fused = {"Relu", "Clip"}  # into the integer operator before them
    return all(
        users.get(name) and set(users[name]) <= {"QuantizeLinear", *(fused if node.op_type not in fused else ())}
        for node in proto.graph.node
        if node.op_type not in quantizing
        for name in node.output
    )
