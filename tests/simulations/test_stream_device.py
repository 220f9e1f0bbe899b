"""Devices on a stream: predicted before learned, and the same result after a run was killed between two rounds."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.edge_schemes import DONE, run
from client.device import Begun
from fedstill.learning import accuracy, restored
from fedstill.tasks import load_task
from simulations.host import data_in, make_device
from simulations.methods import load_method
from simulations.scenario import Scenario
from simulations.shelf import Shelf
from simulations.stream_device import StreamDevice

STREAM = ("stream.window=2", "stream.drift=disturbance")


def test_a_run_on_a_stream_resumes_to_the_result_of_an_undisturbed_one(
    small_options: list[str], tmp_path: Path
) -> None:
    scenario = load_method("digits", "fedstill", [*small_options[1::2], *STREAM])
    out = tmp_path / "run"
    rows = run(scenario, out)
    for row in rows:
        assert set(row["prequential_accuracy"]) == set(scenario.device_classes)
    assert run(scenario, out) == rows  # done already
    # Killed when the devices of the last round had answered, before its checkpoint was written.
    shutil.rmtree(out / "checkpoints" / "round-00002")
    (out / DONE).unlink()
    assert run(scenario, out) == rows
    _predicts_before_it_learns(scenario, out)


def _predicts_before_it_learns(scenario: Scenario, out: Path) -> None:
    shelf, task = Shelf(out / "assets"), load_task(scenario.task)
    folder = out / "devices" / "device-00000"
    (folder / "round-00002.state").unlink()
    device = make_device(scenario, shelf, 0, out / "devices")
    assert isinstance(device, StreamDevice)
    request = (out / "requests" / "0").read_bytes()
    begun = device.begin(request)
    assert isinstance(begun, Begun)
    model = restored(device.architecture, task, begun.student)
    _, found = data_in(scenario, shelf, 0, 2)
    new = accuracy(model, found.images[-found.fresh :], found.labels[-found.fresh :], task)
    answer = device.answer(request)
    assert answer.metrics["prequential"] == new
    assert (device.data.labels == found.labels).all()
    assert device.class_prior.sum() == pytest.approx(1)
    assert json.dumps(dict(device.answer(request).metrics)) == json.dumps(dict(answer.metrics))
