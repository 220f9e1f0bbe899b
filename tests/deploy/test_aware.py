"""Releases in other ways than the default: learned under quantization (minutes of torchao's work), or refused one."""

from pathlib import Path

import onnx
import pytest
import torch

from benchmarks.qat import spread
from fedstill.device_classes import Budget
from fedstill.learning import build, fit, predict, state_of
from fedstill.models import architecture
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE
from fedstill.settings import FitSettings
from fedstill.tasks import load_task
from server.release.aware import AWARE, Awareness
from server.release.student import release
from server.release.weights import weight_kinds
from simulations.sources import load_digits

pytestmark = pytest.mark.deploy
TASK_NAME, STUDENT = "simulations.sources:DIGITS", "tiny-separable-s"
TASK = load_task(TASK_NAME)
ARRAYS = load_digits(None)


def test_a_student_that_calibration_ruins_learns_on_under_quantization_and_loses_less(tmp_path: Path) -> None:
    model = build(architecture(STUDENT), TASK, seed=0)
    how = FitSettings(epochs=20, learning_rate=0.05).of(600)
    labels = torch.from_numpy(ARRAYS.train_labels[:600])
    fit(model, ARRAYS.train_images[:600], labels, TASK, how, torch.nn.functional.cross_entropy, 0)
    proxy = ARRAYS.train_images[600:]
    soft = predict(model, proxy, TASK)
    spread(model, 1 / 30, 30)
    # With a third of the rate it is not yet out of the ruins, and then processors' roundings decide.
    gentle = FitSettings(optimizer="adam", epochs=15, batch=32, learning_rate=1e-3, weight_decay=0)
    test = (ARRAYS.test_images, ARRAYS.test_labels)
    facts = release(
        TASK_NAME,
        "pi5",
        STUDENT,
        state_of(model),
        proxy[:200],
        test,
        tmp_path,
        Budget(),
        aware=Awareness(proxy, soft, gentle, 1.0, seed=0),
    )
    assert facts.accuracy_calibrated is not None
    assert facts.accuracy_fp32 - facts.accuracy_calibrated > 0.01
    assert facts.accuracy_int8 > facts.accuracy_calibrated
    assert "agreement with torch" in {check.name for check in facts.checks if check.passed}
    assert set(weight_kinds(onnx.load(tmp_path / INT8_FILE))) == {"int8"}
    assert facts.description is not None
    assert facts.description.files[INT8_FILE].format == AWARE.words
    assert facts.description.self_test.expected[INT8_FILE].tolerance == AWARE.tolerance


def test_a_format_that_does_not_suit_the_student_is_refused_with_its_reason(tmp_path: Path) -> None:
    state = state_of(build(architecture(STUDENT), TASK, seed=0))
    test = (ARRAYS.test_images[:60], ARRAYS.test_labels[:60])
    proxy = ARRAYS.train_images[:40]
    facts = release(TASK_NAME, "pi5", STUDENT, state, proxy, test, tmp_path, Budget(), wanted="dynamic-int8")
    (reason,) = facts.refused
    assert reason.startswith(
        "format dynamic-int8 does not suit this student: it has 5 Conv, which it would make slower"
    )
    assert facts.artifact == FLOAT_FILE
    assert [path.name for path in tmp_path.iterdir()] == [FLOAT_FILE]
