"""The table of all classes of a run: teacher and signed students measured alike, what was refused shown as such."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fedstill.errors import DataError, FedstillError, ReleaseError, RunFolderError
from fedstill.files import write_json
from fedstill.learning import build, state_of
from fedstill.models import architecture
from fedstill.release.manifest import (
    INT8_FILE,
    Description,
    Expected,
    File,
    Input,
    Output,
    Parent,
    Runtime,
    SelfTest,
)
from fedstill.release.verify import digest
from fedstill.tasks import load_task
from server.checkpoints import Checkpoints
from server.release.export import normalization
from server.release.keys import open_keys
from server.release.sign import sign_folder
from simulations.evaluate import register
from simulations.run_folder import SUMMARY, write_config
from simulations.scenario import Scenario, dump
from simulations.shelf import open_shelf

app = typer.Typer()
register(app)


@app.callback()
def _root() -> None:
    pass


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--seconds", "0.05"])


def write_student(folder: Path, scenario: Scenario) -> Description:
    """Write a linear student that was never trained."""
    task = load_task(scenario.task)
    size = int(np.prod(task.input_shape))
    weights = np.random.default_rng(0).normal(size=(size, task.classes)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "student",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *task.input_shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", task.classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / INT8_FILE)
    length, sha256 = digest(folder / INT8_FILE)
    how = normalization(task)
    return Description(
        device_class=folder.name,
        task=task.name,
        student="linear",
        label_names=task.label_names,
        input=Input(name="image", shape=("batch", *task.input_shape), type="float32", normalization=how),
        output=Output(name="logits", shape=("batch", task.classes), type="float32"),
        artifact=INT8_FILE,
        files={INT8_FILE: File(format="", bytes=length, sha256=sha256)},
        runtime=Runtime(onnxruntime_minimum="1.20", onnxruntime="1.20", opset=20, ir_version=10),
        self_test=SelfTest(
            images="", shape=(0, *task.input_shape), expected={INT8_FILE: Expected(exact=False, logits=())}
        ),
        metrics={},
    )


@pytest.fixture
def finished(small: Scenario, tmp_path: Path) -> Path:
    """A finished run with one signed student; the others were refused."""
    out = tmp_path / "run"
    out.mkdir()
    write_config(out, dump(small))
    open_shelf(out / "assets", small)
    assert small.teacher is not None
    teacher = state_of(build(architecture(small.teacher.architecture), load_task(small.task), seed=0))
    Checkpoints(out / "checkpoints").save(2, {"teacher": teacher})
    for name in small.device_classes:
        (out / "students" / name).mkdir(parents=True)
    described = write_student(out / "students" / "mcu", small)
    parent = Parent(run="run", scenario="digits", seed=0, rounds=2)
    sign_folder(out / "students" / "mcu", described, parent, open_keys(tmp_path / "keys"))
    write_json(out / SUMMARY, {"commit": None})
    return out


def test_ratios_are_to_the_teacher_and_refused_classes_have_no_figures(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = tmp_path / "bin" / "vcgencmd"
    sensor.parent.mkdir()
    sensor.write_text("#!/bin/sh\necho 'VDD_CORE_A current(7)=2.0A'\necho 'VDD_CORE_V volt(15)=0.75V'\n")
    sensor.chmod(0o755)
    monkeypatch.setenv("PATH", str(sensor.parent), prepend=os.pathsep)
    shown = run(finished, "--keys", tmp_path / "keys")
    assert shown.exit_code == 0, shown.output
    assert "refused" in shown.stdout
    found = json.loads((finished / "evaluation.json").read_text())
    rows = {row["class"]: row for row in found["rows"]}
    assert list(rows) == ["teacher", "pi5", "pi4", "zero2w", "mcu"]
    teacher, student = rows["teacher"], rows["mcu"]
    assert teacher["to_teacher"] is None
    assert student["to_teacher"]["size"] == pytest.approx(teacher["bytes"] / student["bytes"])
    kept = student["knowledge"]["accuracy"] / teacher["knowledge"]["accuracy"]
    assert student["to_teacher"]["accuracy_kept"] == pytest.approx(kept)
    both = [row["latency_ms"]["1"]["p50"] for row in (teacher, student)]
    assert student["to_teacher"]["latency"] == pytest.approx(both[0] / both[1])
    assert student["knowledge"]["samples"] == teacher["knowledge"]["samples"] > 300
    for name in ("pi5", "pi4", "zero2w"):
        assert rows[name]["file"] is None
        assert "refused" in rows[name]["refused"]
    watts = [row["power"]["watts"] for row in (teacher, student)]
    assert student["to_teacher"]["power"] == pytest.approx(watts[0] / watts[1])
    if student["power"]["millijoules"] is None:  # the sensor says the same of an idle machine
        assert student["to_teacher"]["energy"] is None


def test_what_is_no_finished_run_or_signed_by_others_is_refused(finished: Path, tmp_path: Path) -> None:
    open_keys(tmp_path / "others")
    other = run(finished, "--keys", tmp_path / "others").exception
    assert isinstance(other, ReleaseError)
    assert "does not name" in str(other)
    (finished / SUMMARY).unlink()
    unfinished = run(finished, "--keys", tmp_path / "keys").exception
    assert isinstance(unfinished, RunFolderError)
    assert "no finished run here" in str(unfinished)


def test_a_damaged_run_is_refused_in_one_line(finished: Path, tmp_path: Path) -> None:
    def refused(kind: type[FedstillError], message: str) -> None:
        error = run(finished, "--keys", tmp_path / "keys").exception
        assert isinstance(error, kind), error
        assert message in str(error)
        assert "\n" not in str(error)

    shutil.rmtree(finished / "checkpoints")
    refused(RunFolderError, "its teacher's state is missing")
    labels = finished / "assets" / "test-labels.npy"
    np.save(labels, np.load(labels)[:-1])
    refused(DataError, "test labels are")
    labels.write_bytes(b"")
    refused(DataError, "test samples are damaged or missing")
    images = finished / "assets" / "test-images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    refused(DataError, "test samples are damaged or missing")
    images.unlink()
    refused(DataError, "test-images.npy")
    (finished / SUMMARY).write_text('{"commit":')
    refused(DataError, "summary.json: damaged")
