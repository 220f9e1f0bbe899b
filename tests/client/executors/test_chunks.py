from pathlib import Path

import pytest

from client.executors.chunks import CHUNKS, best_chunk
from client.executors.cohort import Cohorts
from client.executors.settings import CohortSettings
from fedstill.errors import ConfigError
from simulations.sources import DIGITS


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.executors.chunks._measured", {})


def test_the_chunk_that_is_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.executors.chunks.seconds", lambda *what: {1: 3.0, 10: 2.0, 50: 4.0}[what[-1]])
    assert best_chunk("tiny-conv-s", DIGITS, 16, "cpu") == 10
    monkeypatch.delattr("client.executors.chunks.seconds")
    assert best_chunk("tiny-conv-s", DIGITS, 16, "cpu") == 10  # without measuring again


def test_a_measurement_finds_one_of_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.executors.chunks.CHUNKS", {"cpu": (1, 2)})
    assert best_chunk("tiny-separable-s", DIGITS, 16, "cpu") in (1, 2)
    assert CHUNKS["cpu"][0] == 1


def test_a_student_that_can_only_be_computed_alone_is(tmp_path: Path) -> None:
    code = """
from torch import nn

class Alone(nn.Sequential):
    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)

def student(task):
    return Alone(nn.Flatten(), nn.Linear(64, task.classes))
"""
    (tmp_path / "own.py").write_text(code)
    assert best_chunk(f"{tmp_path}/own.py:student", DIGITS, 16, "cpu") == 1


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU"):
        Cohorts(1, CohortSettings(device="cuda"))
