"""Weights in half precision: half the bytes of any student; inputs and logits stay float32.

On a processor without half-precision arithmetic it runs as float32 with casts, no faster.
"""

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from fedstill.errors import ExportError
from fedstill.tasks import Images, Task
from server.release.export import write_stripped
from server.release.formats.interface import Format
from server.release.quiet import quiet
from server.release.weights import weight_kinds


def write(source: Path, target: Path, task: Task, calibration: Images) -> onnx.ModelProto:
    """Write the half-precision form of `source` to `target`; nothing is calibrated.

    Raises:
        ExportError: no operator of the student has weights.
    """
    with quiet():
        proto: onnx.ModelProto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    if not weight_kinds(proto)["float16"]:
        raise ExportError(f"{FLOAT16.name} changes nothing here: no operator of this student has weights")
    return write_stripped(proto, target)


# Cores with half-precision arithmetic (emulated Cortex-A76) differ from x86 by up to 5.4e-2.
FLOAT16 = Format("float16", "fp16", "float16", 2, 1e-1, write)
