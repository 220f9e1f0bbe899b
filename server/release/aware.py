"""Quantization-aware distillation: a student learns on under the rounding that static int8 does to it.

Every weight and activation is rounded in the forward pass, the gradient passes as if it were not (Jacob et al. 2018,
arXiv 1712.05877, section 3). torchao rewrites the exported graph so, BatchNorm folded, and afterwards into integers;
the head's logits stay float. For students that lose more than the gate allows to calibration alone.
"""

import importlib.util
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from fedstill.errors import ExportError
from fedstill.learning import fit, normalize
from fedstill.losses import kd_from_probabilities
from fedstill.rng import torch_seed
from fedstill.settings import FitSettings
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task
from server.release.export import export, write_stripped
from server.release.formats import FORMATS, Format
from server.release.quiet import quiet
from server.release.runtime import logits

# The mean before the head is taken in float, where processors may add in another order: a rounding may fall otherwise.
AWARE: Format = replace(
    FORMATS["static-int8"],
    words="int8 QDQ, activations u8, weights s8 per channel, learned under quantization",
    tolerance=1e-2,
)


@dataclass(frozen=True)
class Awareness:
    """What a student learns from under quantization.

    Attributes:
        images: proxy samples that have a label.
        labels: their soft labels `[samples, classes]`.
        how: the fit.
        temperature: T of the distillation.
        seed: run seed.
    """

    images: Images
    labels: Floats
    how: FitSettings
    temperature: float
    seed: int


def available() -> bool:
    """Return whether torchao is installed."""
    return importlib.util.find_spec("torchao") is not None


def distil_aware(
    model: nn.Module, target: Path, task: Task, student: str, lesson: Awareness, calibration: Images
) -> tuple[onnx.ModelProto, float]:
    """Distil a student under quantization, and write its int8 form to `target`.

    Args:
        model: the trained student; it stays as it is.
        target: where to write.
        task: what it learned.
        student: its architecture, which the random stream is derived from.
        lesson: what it learns from.
        calibration: proxy samples `[samples, ...]`.

    Returns:
        The int8 model, and on which share of the calibration samples it predicts what torch does with it.

    Raises:
        ExportError: torchao can't rewrite the student, or the result can't be exported; no file is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / target.name
        try:
            converted = _learned(deepcopy(model), task, student, lesson)
            export(converted, task, exported)
            proto = write_stripped(unshared(onnx.load(exported)), exported)
            content = exported.read_bytes()
            found = logits(content, task, calibration)
        except Exception as error:  # of torch's exporters, torchao's rewriting and the runtime, whatever they meet
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"{student} can't learn under quantization: {reason}") from error
    with torch.no_grad():
        wanted: Floats = converted(normalize(calibration, task)).numpy()
    target.write_bytes(content)
    return proto, float(np.mean(wanted.argmax(axis=1) == found.argmax(axis=1)))


def _learned(model: nn.Module, task: Task, student: str, lesson: Awareness) -> nn.Module:
    """Return a model as torchao's graph of integers, after it has learned as one that is only rounded."""
    with quiet():
        from torchao.quantization.pt2e import allow_exported_model_train_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        batch: Any = torch.export.Dim("batch")
        example = (normalize(lesson.images[:2], task),)
        graph = torch.export.export(model.train(), example, dynamic_shapes=({0: batch},)).module()
        how = x86.get_default_x86_inductor_quantization_config(is_qat=True)
        prepared = allow_exported_model_train_eval(prepare_qat_pt2e(graph, x86.X86InductorQuantizer().set_global(how)))
        loss = partial(kd_from_probabilities, temperature=lesson.temperature)
        labels, seed = torch.from_numpy(lesson.labels), torch_seed(lesson.seed, "aware", student)
        fit(prepared, lesson.images, labels, task, lesson.how.of(len(labels)), loss, seed)
        prepared.eval()  # returns nothing here, other than any module's own
        converted: nn.Module = allow_exported_model_train_eval(convert_pt2e(prepared))
    return converted


def unshared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give each dequantization constants of its own, in place, and return the model.

    The exporter lets layers share equal zero points, with which ONNX Runtime can't rewrite int8 weights for exact sums
    on x86 without VNNI.
    """
    constants = {constant.name: constant for constant in proto.graph.initializer}
    used: set[str] = set()
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if node.op_type != "DequantizeLinear" or name not in constants:
                continue
            if name in used:
                own = proto.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = f"{name}_of_{node.output[0]}"
                node.input[place] = own.name
            used.add(name)
    return proto
