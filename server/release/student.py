"""A class student on its way to a release: exported, quantized, measured and checked; signing comes after."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from fedstill.device_classes import Budget, FormatChoice, NumericFormat
from fedstill.errors import ExportError, ReleaseError
from fedstill.learning import State, parameters, restored
from fedstill.models import architecture
from fedstill.release.manifest import (
    FLOAT_FILE,
    INT8_FILE,
    MANIFEST,
    TOLERANCE,
    Description,
    Expected,
    File,
    Input,
    Output,
    Runtime,
    SelfTest,
)
from fedstill.release.selftest import Answer, ask
from fedstill.release.verify import digest
from fedstill.soft_labels import Floats, Ints
from fedstill.tasks import Images, Task, load_task
from server.astray import finite
from server.release import checks
from server.release.arena import activation_bytes
from server.release.aware import AWARE, Awareness, distil_aware
from server.release.c_code.check import compile_and_run, compiler
from server.release.c_code.write import HEADER, SELF_TEST, SOURCE
from server.release.c_code.write import write as write_c
from server.release.candidates import Candidate, best, candidates
from server.release.checks import Check
from server.release.disturb import DISTURBANCES, disturbed, some
from server.release.export import INPUT, OUTPUT, export, normalization, torch_difference
from server.release.formats import FORMATS, Format, weight_kinds
from server.release.paired import paired_interval
from server.release.quantize import all_integer
from server.release.runtime import latency_ms, logits

__all__ = ["FLOAT_FILE", "INT8_FILE", "MANIFEST", "Released", "paired_interval", "release"]

C_FORMATS = dict.fromkeys((HEADER, SOURCE, SELF_TEST), "C11, the arithmetic of the int8 file")
# Of opset 20 and IR 10, which the exporter writes, and of what the package itself asks for.
MINIMUM_RUNTIME = "1.20"
SELF_TEST_IMAGES = 16
PATIENCE = 120  # seconds for a fresh process to answer the self-test


@dataclass(frozen=True)
class Released:
    """What is known of a class student that was verified.

    Attributes:
        parameters: trained parameters.
        accuracy_fp32: of the fp32 ONNX file on the test set.
        accuracy_int8: of the released one: int8, unless `format` is another.
        drop_interval: paired 95 % interval of the accuracy that quantization cost.
        onnx_fp32_bytes: file size.
        onnx_bytes: file size of the released one.
        latency_fp32_ms: median of one sample on one thread.
        latency_ms: likewise, of the released one.
        torch_difference: largest relative difference of fp32 logits from torch.
        quantized_operators: operators whose weights are in the numbers of the format.
        peak_rss_bytes: peak memory of a fresh ONNX Runtime process with the released file; 0: it did not run.
        activation_bytes: most bytes of activations, in the numbers of the format, that live at once.
        robustness: accuracy of the released file by disturbance and level, on a part of the test set; empty: the
            task's samples are no pictures.
        confusion: its predictions, rows are true classes `[classes, classes]`.
        c_code: bytes of flash, static RAM and arena of its C sources, as far as they are known; empty: it has none.
        checks: what it had to hold.
        description: its manifest without version and parent; None: there is no self-test to put into it.
        format: name of the released file's numeric format.
        formats: what was measured of each format, for a class whose format is found so.
        accuracy_calibrated: of the int8 file that calibration alone gave, where the released one was learned under
            quantization instead.
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
    peak_rss_bytes: int
    activation_bytes: int
    robustness: dict[str, dict[str, float]]
    confusion: list[list[int]]
    c_code: dict[str, int]
    checks: list[Check]
    description: Description | None
    format: NumericFormat = "static-int8"
    formats: tuple[Candidate, ...] = ()
    accuracy_calibrated: float | None = None

    @property
    def artifact(self) -> str:
        """The released file's name."""
        return _file_of(self.format)

    @property
    def refused(self) -> list[str]:
        """Reasons for which it is not released; none: it may be."""
        return checks.refusals(self.checks)


def release(
    task_name: str,
    device_class: str,
    student: str,
    state: State,
    calibration: Images,
    test: tuple[Images, Ints],
    folder: Path,
    budget: Budget,
    devices_ms: float | None = None,
    wanted: FormatChoice = "static-int8",
    aware: Awareness | None = None,
) -> Released:
    """Export, quantize, measure and check a class student; its models lie in `folder` whatever the checks say.

    Args:
        task_name: reference of the task.
        device_class: name of the class.
        student: its architecture.
        state: the trained student.
        calibration: proxy samples for the quantization; the self-test publishes a few of them.
        test: images and labels of the test set.
        folder: where the files go; it exists.
        budget: what the release may cost.
        devices_ms: milliseconds of one sample that the class's own devices measured with this architecture; None:
            they have measured nothing yet.
        wanted: the numeric format of the class, or how it is found.
        aware: what the student learns from under quantization, should static int8 lose more than the gate allows;
            None: it then is refused, as is one whose class runs C (`budget.ram` is `activations`).

    Raises:
        ExportError: the student can't be exported at all.
    """
    task = load_task(task_name)
    model = restored(architecture(student), task, state)
    fp32 = folder / FLOAT_FILE
    export(model, task, fp32)
    difference = torch_difference(model, fp32, task, calibration[:64])
    images, labels = test
    answers_before = logits(fp32.read_bytes(), task, images)
    before = answers_before.argmax(axis=1)
    astray = []
    if not (finite(state) and np.isfinite(answers_before).all()):
        figure = "left parameters or logits that are no numbers"
        astray, wanted = [Check("training", figure, "finite ones", passed=False)], "float32"  # no quantizer takes it
    tried: list[Candidate] = []
    if wanted == "measured":
        tried = candidates(fp32, task, calibration, test, before, budget)
        wanted = best(tried)
    proto, kind, unsuited = _converted(FORMATS[wanted], fp32, folder, task, calibration)
    special = [checks.suits(unsuited)] if unsuited else []
    file = folder / _file_of(kind.name)
    after = logits(file.read_bytes(), task, images).argmax(axis=1)
    calibrated: float | None = None
    if aware is not None and kind.name == "static-int8" and not _drop(before, after, labels).passed:
        try:
            if budget.ram == "activations":
                raise ExportError("a microcontroller's C code is written of calibrated int8 alone")
            proto, agreement = distil_aware(model, file, task, student, aware, calibration)
        except ExportError as error:  # the calibrated file stays, and is refused for what it loses
            special = [checks.learned(str(error))]
        else:
            calibrated, kind, special = float((after == labels).mean()), AWARE, [checks.agreement(agreement)]
            after = logits(file.read_bytes(), task, images).argmax(axis=1)
    content = file.read_bytes()
    held = weight_kinds(proto)
    confusion = np.zeros((task.classes, task.classes), dtype=np.int64)
    np.add.at(confusion, (labels, after), 1)
    vectors = calibration[clear_samples(logits(content, task, calibration))]
    answers, failure = _answers(tuple(dict.fromkeys((file, fp32))), vectors, task)
    accuracies = float((before == labels).mean()), float((after == labels).mean())
    interval = paired_interval(before, after, labels)
    rss = answers[file.name].peak_rss_bytes if file.name in answers else 0
    activations = kind.activation_bytes * activation_bytes(fp32)
    latency = latency_ms(content, task, images[:1])
    sources: dict[str, int] = {}
    c_checks: list[Check] = []
    if budget.ram == "activations" and file.name in answers:
        sources, check = _c_code(proto, folder, task, (vectors, answers[file.name].logits))
        c_checks = [check]
    measured: dict[str, Any] = {
        "parameters": parameters(model),
        "accuracy_fp32": accuracies[0],
        "accuracy_int8": accuracies[1],
        "drop_interval": interval,
        "onnx_fp32_bytes": fp32.stat().st_size,
        "onnx_bytes": len(content),
        "latency_fp32_ms": latency_ms(fp32.read_bytes(), task, images[:1]),
        "latency_ms": latency,
        "torch_difference": difference,
        "quantized_operators": held[kind.weights],
        "peak_rss_bytes": rss,
        "activation_bytes": activations,
        "robustness": _robustness(content, task, test),
        "c_code": sources,
        "format": kind.name,
        "accuracy_calibrated": calibrated,
    }
    found = [
        *astray,
        checks.equality(difference),
        checks.operators(held[kind.weights], held.total(), kind.weights),
        checks.runs(failure),
        _drop(before, after, labels),
        checks.flash(len(content), budget),
        checks.ram(rss, activations, budget),
        checks.size(parameters(model), budget),
        checks.latency(latency if devices_ms is None else devices_ms, budget, own_device=devices_ms is not None),
        *c_checks,
        *special,
    ]
    if checks.refusals(found):
        for name in C_FORMATS:  # a refused student's models stay to be looked at; nobody is to build its sources
            (folder / name).unlink(missing_ok=True)
    metrics = {**measured, "formats": [asdict(one) for one in tried], "checks": [asdict(check) for check in found]}
    described = None
    if not failure:
        described = _describe(task, device_class, student, folder, kind, proto, vectors, answers, budget, metrics)
    return Released(**measured, formats=tuple(tried), confusion=confusion.tolist(), checks=found, description=described)


def _drop(before: Ints, after: Ints, labels: Ints) -> Check:
    """Check what the format cost, from the classes predicted before and after and the true ones `[samples]`."""
    accuracies = float((before == labels).mean()), float((after == labels).mean())
    return checks.accuracy(*accuracies, paired_interval(before, after, labels))


def _file_of(kind: NumericFormat) -> str:
    """Return the name of the file to release; in float32 it is the reference itself, which a device then gets once."""
    return FLOAT_FILE if kind == "float32" else INT8_FILE


def _converted(
    kind: Format, fp32: Path, folder: Path, task: Task, calibration: Images
) -> tuple[onnx.ModelProto, Format, str]:
    """Return the student in its class's format; where that does not suit it, in float32, with the reason."""
    try:
        return kind.write(fp32, folder / _file_of(kind.name), task, calibration), kind, ""
    except ExportError as error:
        return onnx.load(fp32), FORMATS["float32"], str(error)


def _answers(models: tuple[Path, ...], vectors: Images, task: Task) -> tuple[dict[str, Answer], str]:
    """Return what each model answers in a fresh process, and why one does not; empty: all do."""
    answers: dict[str, Answer] = {}
    try:
        for path in models:
            answers[path.name] = ask(path, vectors, normalization(task), PATIENCE)
    except ReleaseError as error:
        return answers, str(error)
    return answers, ""


def _c_code(
    proto: onnx.ModelProto, folder: Path, task: Task, self_test: tuple[Images, Floats]
) -> tuple[dict[str, int], Check]:
    """Write a microcontroller's student as C, compile it where a compiler is, and return what it takes."""
    try:
        arena = write_c(proto, folder, normalization(task), task.label_names, self_test)
    except ExportError as error:
        return {}, checks.c_code(f"not written: {error}", passed=False, refuses=False)
    command = compiler()
    if command is None:
        return {"arena_bytes": arena}, checks.c_code("not compiled: no C compiler here", passed=True, refuses=False)
    try:
        found = compile_and_run(folder, command)
    except ExportError as error:
        return {"arena_bytes": arena}, checks.c_code(str(error), passed=False, refuses=True)
    taken = {"arena_bytes": arena, **asdict(found)}
    return taken, checks.c_code(f"equal on {len(self_test[0])} images", passed=True, refuses=True)


def clear_samples(found: Floats) -> Ints:
    """Return, for each class that is predicted at all, the sample with the widest margin, at most `SELF_TEST_IMAGES`.

    A near tie could fall either way under another rounding, which a self-test must not mistake for a broken model.

    Args:
        found: logits `[samples, classes]`.
    """
    top = np.sort(found, axis=1)
    margin, predicted = top[:, -1] - top[:, -2], found.argmax(axis=1)
    rows = [np.flatnonzero(predicted == number) for number in np.unique(predicted)]
    best = [int(own[margin[own].argmax()]) for own in rows]
    return np.array(best[:SELF_TEST_IMAGES], dtype=np.int64)


def _robustness(content: bytes, task: Task, test: tuple[Images, Ints]) -> dict[str, dict[str, float]]:
    if not task.pictures:
        return {}
    part = some(len(test[1]))
    images, labels = np.array(test[0][part]), test[1][part]

    def accuracy(shown: Images) -> float:
        return float((logits(content, task, shown).argmax(axis=1) == labels).mean())

    clean = accuracy(images)
    return {
        name: {"0": clean, **{f"{level:g}": accuracy(disturbed(images, name, level)) for level in levels}}
        for name, (_, levels) in DISTURBANCES.items()
    }


def _describe(
    task: Task,
    device_class: str,
    student: str,
    folder: Path,
    kind: Format,
    proto: onnx.ModelProto,
    vectors: Images,
    answers: dict[str, Answer],
    budget: Budget,
    metrics: dict[str, Any],
) -> Description:
    files, artifact = {}, _file_of(kind.name)
    words = {artifact: kind.words, FLOAT_FILE: FORMATS["float32"].words, **C_FORMATS}
    for name in words:
        if (folder / name).exists():
            length, sha256 = digest(folder / name)
            files[name] = File(format=words[name], bytes=length, sha256=sha256)
    expected = {
        name: Expected(
            exact=name == artifact and all_integer(proto),
            tolerance=kind.tolerance if name == artifact else TOLERANCE,
            logits=tuple(map(tuple, answer.logits.tolist())),
        )
        for name, answer in answers.items()
    }
    count, channels, height, width = vectors.shape
    return Description(
        device_class=device_class,
        task=task.name,
        student=student,
        label_names=task.label_names,
        input=Input(name=INPUT, shape=("batch", *task.input_shape), type="float32", normalization=normalization(task)),
        output=Output(name=OUTPUT, shape=("batch", task.classes), type="float32"),
        artifact=artifact,
        files=files,
        runtime=Runtime(
            onnxruntime_minimum=MINIMUM_RUNTIME,
            onnxruntime=ort.__version__,
            opset=next(found.version for found in proto.opset_import if found.domain in ("", "ai.onnx")),
            ir_version=proto.ir_version,
        ),
        self_test=SelfTest(
            images=base64.b64encode(np.ascontiguousarray(vectors).tobytes()).decode(),
            shape=(count, channels, height, width),
            expected=expected,
        ),
        budget=budget,
        metrics=metrics,
    )
