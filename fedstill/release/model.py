"""A released model in ONNX Runtime: sessions and inputs, without torch, and without what reading a manifest needs."""

from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from fedstill.soft_labels import Floats
from fedstill.tasks import Images

CPU = Path("/proc/cpuinfo")


class Scaling(Protocol):
    """What a manifest's normalization says."""

    @property
    def scale(self) -> float:
        """Of the pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """By channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """By channel."""


def session(content: bytes, threads: int = 1) -> ort.InferenceSession:
    """Open a model on the CPU, by default with one thread: more brought tiny students nothing at batch size one."""
    if _has_vnni():
        return _opened(content, threads, exact=False)
    try:
        return _opened(content, threads, exact=True)
    except Fail:  # the runtime can't rewrite every model so, for instance none whose weights share a zero point
        return _opened(content, threads, exact=False)


@cache
def _has_vnni() -> bool:
    """Say whether this is an x86 processor whose 8-bit products are summed at 32 bits."""
    try:
        return "vnni" in CPU.read_text(errors="replace")
    except OSError:
        return False


def _opened(content: bytes, threads: int, exact: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if exact else 3  # what can't be rewritten is opened otherwise, and no error
    # Without VNNI the fast kernels of x86 let sums of two 8-bit products saturate at 16 bits: other logits than any
    # other processor's, 1.9 points of accuracy for one student. This asks for exact kernels there. With VNNI sums are
    # exact anyway, and what it rewrites costs up to a quarter of the time; on ARM it changes nothing.
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def normalized(images: Images, how: Scaling) -> Floats:
    """Return a model's input: bit for bit what the server's torch code makes of uint8 images.

    Args:
        images: uint8 `[samples, channels, height, width]`.
        how: a manifest's normalization.
    """
    mean = np.array(how.mean, dtype=np.float32).reshape(1, -1, 1, 1)
    std = np.array(how.std, dtype=np.float32).reshape(1, -1, 1, 1)
    return (images.astype(np.float32) / np.float32(round(1 / how.scale)) - mean) / std


def one_by_one(model: ort.InferenceSession, inputs: Floats) -> Floats:
    """Return a model's logits, one sample at a time as on a device `[samples, classes]`."""
    name = model.get_inputs()[0].name
    parts = [model.run(None, {name: inputs[place : place + 1]})[0] for place in range(len(inputs))]
    return np.concatenate(parts).astype(np.float32)
