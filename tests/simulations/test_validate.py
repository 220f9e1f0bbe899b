"""What a scenario names is tried before its run begins."""

from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from simulations.scenario import Scenario
from simulations.validate import validate

OWN = """
import torch
from torch import nn

class Spectral(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(8, classes)

    def forward(self, images):
        return self.head(torch.linalg.svdvals(images[:, 0]))

def spectral(task):
    return Spectral(task.classes)

def linear(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.classes))

def narrow(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""


def of(scenario: Scenario, student: str) -> Scenario:
    kinds = dict(scenario.device_classes)
    kinds["mcu"] = kinds["mcu"].model_copy(update={"student": student})
    return scenario.model_copy(update={"device_classes": kinds})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spectral", r"could not be released: .*can't be exported to ONNX"),
        ("narrow", r"returns \[2, 3\] for two images, expected \[2, 10\]"),
        ("missing", "missing"),
    ],
)
def test_a_student_of_ones_own_that_can_not_do_is_refused_by_its_place_in_one_line(
    name: str, message: str, small: Scenario, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ConfigError, match=message) as told:
        validate(of(small, f"{tmp_path}/own.py:{name}"))
    assert str(told.value).startswith("device_classes.mcu.student: ")
    assert "\n" not in str(told.value)


def test_a_student_of_ones_own_that_can_be_exported_is_taken(small: Scenario, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    validate(of(small, f"{tmp_path}/own.py:linear"))


def test_a_gpu_that_is_not_here_is_missed_before_the_run_unless_other_machines_compute(
    small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cohort = small.cohort.model_copy(update={"device": "cuda"})
    scenario = small.model_copy(update={"executor": "cohort", "cohort": cohort})
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        validate(scenario)
    validate(scenario, elsewhere=True)
