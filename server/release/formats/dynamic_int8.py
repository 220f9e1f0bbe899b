"""Weights in int8, activations quantized anew for each input: the format for transformers and dense students.

Scales that follow the input keep the accuracy of transformers, whose activations static scales clip. Convolutions are
refused: ONNX Runtime runs them 5 to 16 times slower so than in float.
"""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from fedstill.tasks import Images, Task
from server.release.export import write_stripped
from server.release.formats.interface import Format
from server.release.quiet import quiet
from server.release.weights import require_only

OPERATORS = ("MatMul", "Gemm", "Gather")  # the last for embeddings, which are most of a small transformer


def write(source: Path, target: Path, task: Task, calibration: Images) -> onnx.ModelProto:
    """Write the form of `source` with dynamic int8 products to `target`; nothing is calibrated.

    Raises:
        ExportError: the student has other operators with weights than matrix products, or none.
    """
    require_only(onnx.load(source), OPERATORS, DYNAMIC_INT8.name, "which it would make slower than in float")
    with quiet(), tempfile.TemporaryDirectory() as folder:
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_dynamic(
            str(prepared),
            str(written),
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        proto = onnx.load(written)
    return write_stripped(proto, target)


# Measured between x86 and emulated Cortex-A53, A72 and A76: 3.1e-3 at most.
DYNAMIC_INT8 = Format("dynamic-int8", "int8 weights s8 per channel, activations u8 by input", "int8", 4, 1e-2, write)
