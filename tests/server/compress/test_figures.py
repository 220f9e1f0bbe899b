"""What a candidate is measured by, on its very file."""

from pathlib import Path

import pytest
import torch

from fedstill.errors import ExportError
from fedstill.models.shapes import Shape
from server.compress.figures import Exported
from server.compress.learn import Material
from server.students import initial

SHAPE = Shape("pooled-conv", ((4,), (4,)))


def test_a_student_whose_training_went_astray_is_no_candidate(material: Material, tmp_path: Path) -> None:
    state = initial(material.task, str(SHAPE), seed=0)
    state["head.weight"] = torch.full_like(state["head.weight"], float("nan"))
    with pytest.raises(ExportError, match="parameters that are no numbers"):
        Exported(tmp_path, SHAPE, state, material)
    assert not any(tmp_path.iterdir())
