"""A student that int8 ruins: function-preserving scales spread over a depthwise network's channels."""

from pathlib import Path

import torch

from benchmarks.qat import spread
from fedstill.device_classes import Budget
from fedstill.learning import build, fit, state_of
from fedstill.models import architecture
from fedstill.settings import FitSettings
from fedstill.tasks import load_task
from server.release.student import FLOAT_FILE, INT8_FILE, release
from simulations.sources import load_digits

TASK_NAME = "simulations.sources:DIGITS"
TASK = load_task(TASK_NAME)
ARRAYS = load_digits(None)


def test_a_constructed_depthwise_collapse_is_refused_with_its_figures(tmp_path: Path) -> None:
    name = "tiny-separable-m"
    model = build(architecture(name), TASK, seed=0)
    how = FitSettings(epochs=20, learning_rate=0.05).of(600)
    labels = torch.from_numpy(ARRAYS.train_labels[:600])
    fit(model, ARRAYS.train_images[:600], labels, TASK, how, torch.nn.functional.cross_entropy, 0)
    spread(model, 1 / 300, 300)
    test = (ARRAYS.test_images, ARRAYS.test_labels)
    facts = release(
        TASK_NAME, "pi5", name, state_of(model), ARRAYS.train_images[600:800], test, tmp_path, Budget(flash_bytes=9000)
    )
    assert facts.accuracy_fp32 > 0.85
    assert facts.accuracy_int8 < 0.4
    drop, flash = facts.refused
    assert drop.startswith("accuracy drop ")
    assert drop.endswith("allowed 1.0")
    assert flash == f"flash {facts.onnx_bytes / 1e3:,.0f} kB, allowed 9 kB"
    assert {path.name for path in tmp_path.iterdir()} == {FLOAT_FILE, INT8_FILE}
