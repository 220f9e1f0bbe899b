"""What a candidate is measured by, on its very file."""

from pathlib import Path

import pytest
import torch

from fedstill.device_classes import Budget
from fedstill.errors import ExportError
from fedstill.models.shapes import Shape
from server.compress.figures import Exported, Figures, misses
from server.compress.learn import Material
from server.students import initial

SHAPE = Shape("pooled-conv", ((4,), (4,)))


def test_a_student_whose_training_went_astray_is_no_candidate(material: Material, tmp_path: Path) -> None:
    state = initial(material.task, str(SHAPE), seed=0)
    state["head.weight"] = torch.full_like(state["head.weight"], float("nan"))
    with pytest.raises(ExportError, match="parameters that are no numbers"):
        Exported(tmp_path, SHAPE, state, material)
    assert not any(tmp_path.iterdir())


def test_a_student_whose_predictions_are_no_numbers_is_no_candidate(material: Material, tmp_path: Path) -> None:
    state = {name: value * 1e20 for name, value in initial(material.task, str(SHAPE), seed=0).items()}
    exported = Exported(tmp_path, SHAPE, state, material)
    with pytest.raises(ExportError, match="predictions are no numbers"):
        exported.figures("float32", Budget(ram="activations"))


def test_what_is_missed_is_told_in_whole_bytes_however_many() -> None:
    figures = Figures(0.9, 0.3, 1200, memory_bytes=89_000_000, latency_ms=12.5, parameters=1, flops=1.0)
    told = misses(figures, Budget(ram_bytes=50_000_000, ram="process", latency_ms=10))
    assert told == "89,000,000 bytes of memory where 50,000,000 are allowed and 12.5 ms where 10 are allowed"
