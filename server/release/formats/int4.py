"""Weights of matrix products in 4 bits, in blocks of a scale each: the smallest products, computed in float.

ONNX Runtime's quantizer leaves convolutions and embeddings alone, and `Gemm` too, so a student may come out of it as it
went in: dense layers are split into product and sum first, and what still has nothing to quantize is refused.
"""

from pathlib import Path

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel

from fedstill.errors import ExportError
from fedstill.tasks import Images, Task
from server.release.export import write_stripped
from server.release.formats.interface import Format
from server.release.quiet import quiet
from server.release.weights import require_only, weight_kinds

BITS, BLOCK = 4, 32


def write(source: Path, target: Path, task: Task, calibration: Images) -> onnx.ModelProto:
    """Write the form of `source` with 4-bit products to `target`; nothing is calibrated.

    Raises:
        ExportError: the student has other operators with weights than matrix products, or none, or the quantizer left
            some as they were.
    """
    model = ONNXModel(onnx.load(source))
    require_only(model.model, ("MatMul", "Gemm"), INT4.name, "whose weights it leaves as they are")
    with quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # changes the root logger

        model.replace_gemm_with_matmul()
        quantizer = MatMulNBitsQuantizer(model.model, bits=BITS, block_size=BLOCK, is_symmetric=True)
        quantizer.process()
    proto: onnx.ModelProto = quantizer.model.model
    left = weight_kinds(proto)
    if set(left) != {"int4"}:
        raise ExportError(f"{INT4.name} quantized {left['int4']} of {left.total()} matrix products of this student")
    return write_stripped(proto, target)


# Its sums are float32's; blocks may be added in another order. Not measured on other processors.
INT4 = Format("int4", f"int{BITS} weights in blocks of {BLOCK}, computed in fp32", "int4", 4, 1e-2, write)
