"""The release of a class student: exported, quantized, measured, with a manifest."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fedstill.files import write_json
from fedstill.learning import State, build, parameters
from fedstill.models import architecture
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task, load_task
from server.release.export import INPUT, OUTPUT, check_equal, export
from server.release.quantize import quantize
from server.release.runtime import latency_ms, logits

FLOAT_FILE, INT8_FILE, MANIFEST = "student.fp32.onnx", "student.onnx", "manifest.json"


@dataclass(frozen=True)
class Released:
    """What is known of a released student.

    Attributes:
        parameters: trained parameters.
        accuracy_fp32: of the fp32 ONNX file on the test set.
        accuracy_int8: of the quantized one.
        drop_interval: paired 95 % interval of the accuracy that quantization cost.
        onnx_fp32_bytes: file size.
        onnx_bytes: file size of the quantized one.
        latency_fp32_ms: median of one sample on one thread.
        latency_ms: likewise, quantized.
        torch_difference: largest relative difference of fp32 logits from torch.
        quantized_operators: operators with int8 weights.
        confusion: quantized predictions, rows are true classes `[classes, classes]`.
    """

    parameters: int
    accuracy_fp32: float
    accuracy_int8: float
    drop_interval: tuple[float, float]
    onnx_fp32_bytes: int
    onnx_bytes: int
    latency_fp32_ms: float
    latency_ms: float
    torch_difference: float
    quantized_operators: int
    confusion: list[list[int]]


def paired_interval(before: Ints, after: Ints, labels: Ints) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy lost from `before` to `after`, paired by sample.

    Args:
        before: predicted classes `[samples]`.
        after: predicted classes `[samples]`.
        labels: true classes `[samples]`.
    """
    lost = (before == labels).astype(np.float64) - (after == labels)
    half = 1.96 * lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return float(lost.mean() - half), float(lost.mean() + half)


def release(
    task_name: str,
    device_class: str,
    student: str,
    state: State,
    calibration: Images,
    test: tuple[Images, Ints],
    folder: Path,
) -> Released:
    """Export, quantize and measure a class student into `folder`.

    Args:
        task_name: reference of the task.
        device_class: name of the class.
        student: its architecture.
        state: the trained student.
        calibration: proxy samples for the quantization.
        test: images and labels of the test set.
        folder: where the files go; it exists.

    Raises:
        ExportError: the student does not survive export or quantization.
    """
    task = load_task(task_name)
    model = build(architecture(student), task, seed=0)
    model.load_state_dict(state)
    fp32, int8 = folder / FLOAT_FILE, folder / INT8_FILE
    export(model, task, fp32)
    difference = check_equal(model, fp32, task, calibration[:64])
    operators = quantize(fp32, int8, task, calibration)
    images, labels = test
    before = logits(fp32.read_bytes(), task, images).argmax(axis=1)
    after = logits(int8.read_bytes(), task, images).argmax(axis=1)
    confusion = np.zeros((task.classes, task.classes), dtype=np.int64)
    np.add.at(confusion, (labels, after), 1)
    released = Released(
        parameters=parameters(model),
        accuracy_fp32=float((before == labels).mean()),
        accuracy_int8=float((after == labels).mean()),
        drop_interval=paired_interval(before, after, labels),
        onnx_fp32_bytes=fp32.stat().st_size,
        onnx_bytes=int8.stat().st_size,
        latency_fp32_ms=latency_ms(fp32.read_bytes(), task, images[:1]),
        latency_ms=latency_ms(int8.read_bytes(), task, images[:1]),
        torch_difference=difference,
        quantized_operators=operators,
        confusion=confusion.tolist(),
    )
    write_json(folder / MANIFEST, _manifest(task, device_class, student, released, folder))
    return released


def _manifest(task: Task, device_class: str, student: str, released: Released, folder: Path) -> dict[str, object]:
    files = {}
    for name, kind in ((INT8_FILE, "int8 QDQ, activations u8, weights s8 per channel"), (FLOAT_FILE, "fp32")):
        content = (folder / name).read_bytes()
        files[name] = {"format": kind, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {
        "device_class": device_class,
        "task": task.name,
        "student": student,
        "label_names": list(task.label_names),
        "input": {
            "name": INPUT,
            "shape": ["batch", *task.input_shape],
            "type": "float32",
            "normalization": {"scale": 1 / 255, "mean": list(task.mean), "std": list(task.std)},
        },
        "output": {"name": OUTPUT, "shape": ["batch", task.classes], "type": "float32"},
        "files": files,
        "artifact": INT8_FILE,
        "onnxruntime": ort.__version__,
        "metrics": {key: value for key, value in asdict(released).items() if key != "confusion"},
    }
