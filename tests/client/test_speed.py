"""`fedstill client speed`: what it measures, what it writes, what it refuses."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from client.commands import register
from client.probe import look
from client.speed import PREDICTED, STEPS, measure
from fedstill.errors import ConfigError
from fedstill.speed import read_speed

FIGURES = ("train_samples_per_second", "predict_samples_per_second")


def run(*arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    register(app)
    found = CliRunner().invoke(app, ["client", "speed", *arguments, "--seconds", "0.01"])
    return found.exit_code, found.output, found.exception


def test_a_device_tells_how_fast_it_trains_and_predicts_a_student(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    code, told, _ = run("tiny-conv-s", "--input", "1x8x8", "--batch", "16", "--out", str(path))
    speed = read_speed(path)
    assert (code, str(path) in told) == (0, True)
    assert (speed.student, speed.input_shape, speed.classes, speed.batch) == ("tiny-conv-s", (1, 8, 8), 10, 16)
    assert min(speed.predict_samples_per_second, speed.train_samples_per_second) > 0


def test_a_speed_is_samples_over_the_seconds_that_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("client.speed.perf_counter", lambda: 2.0 * next(ticks))
    found = measure("tiny-conv-s", (1, 8, 8), 10, batch=32, seconds=0.01)
    assert found.train == STEPS * 32 / 2
    assert found.predict == PREDICTED / 2


def test_an_emulated_processor_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = replace(look(), architecture="aarch64", emulated=True)
    monkeypatch.setattr("client.probe.look", lambda: machine)
    _, _, error = run("tiny-conv-s")
    assert isinstance(error, ConfigError)
    assert "aarch64 is emulated here" in str(error)


def test_without_a_file_the_figures_are_printed() -> None:
    code, told, _ = run("tiny-conv-s", "--input", "1x8x8")
    assert code == 0
    assert all(json.loads(told)[figure] > 0 for figure in FIGURES)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tiny-conv-s", "--input", "28x28"], "channels x height x width are wanted"),
        (["tiny-conv-s", "--input", "0x8x8"], "channels x height x width are wanted"),
        (["tiny-konv-s"], "did you mean 'tiny-conv-s'"),
        (["pooled-conv-l", "--input", "1x1x1"], "does not go with images of 1x1x1"),
        (["tiny-conv-s", "--input", "1x8x8", "--out", "/dev/null/speed.json"], "/dev/null/speed.json"),
    ],
)
def test_what_can_not_be_measured_is_told(arguments: list[str], reason: str) -> None:
    _, _, error = run(*arguments)
    assert isinstance(error, ConfigError)
    assert reason in str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "nn.Sequential(nn.Flatten(), nn.Linear(64, 3))",
            "does not go with images of 1x8x8, 10 classes: train, batch 1",
        ),
        ("nn.Sequential(nn.Flatten(), nn.Linear(64, 12))", "returns (12,) for an image, 10 logits are wanted"),
        ("1 / 0", "does not go with images of 1x8x8, 10 classes: ZeroDivisionError"),
    ],
)
def test_an_architecture_of_the_users_own_that_does_not_fit_is_told_in_a_line(
    body: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(f"from torch import nn\n\ndef student(task):\n    return {body}\n")
    with pytest.raises(ConfigError) as caught:
        measure(f"{tmp_path}/own.py:student", (1, 8, 8), 10, batch=4, seconds=0.01)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "not what `fedstill client speed` wrote: student"),
        ("[", "not what `fedstill client speed` wrote: the file"),
        ('{"student": "a", "input_shape": [1, 8, 8], "classes": 10, "batch": 1, "machine": "m",'
         ' "train_samples_per_second": 1e999, "predict_samples_per_second": 1}', "train_samples_per_second"),
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        read_speed(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_speed(tmp_path / "none.json")
