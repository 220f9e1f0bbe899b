"""Online distillation: ticks alone; labels by the device's own teacher, each once; no true label."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from client.disk import Disk
from fedstill.errors import PacketError
from fedstill.learning import predict, restored
from fedstill.models import architecture
from fedstill.tasks import load_task
from simulations.baselines.online import HEAD, Online, answer, initial_teacher, publish_teacher
from simulations.methods import load_method
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf
from simulations.stream import arrived


@pytest.fixture
def setup(small_options: list[str], tmp_path: Path) -> Setup:
    scenario = load_method("digits", "online", [*small_options[1::2], "rounds=4", "stream.window=2"])
    shelf = open_shelf(tmp_path / "run" / "assets", scenario)
    publish_teacher(scenario, shelf)
    return Setup(scenario, tmp_path / "run", workers=1, engine="local")


def rounds(setup: Setup, half: Online, count: int, device: int = 0) -> list[bytes]:
    """Let one device answer so many rounds, and return what it was sent."""
    sent = []
    for number in range(1, count + 1):
        sent.append(half.request(device, number))
        reply = answer(setup, device, sent[-1])
        assert not reply.refusal
        half.conclude(number, {device: half.accept(device, number, reply.packet)})
    return sent


def test_nothing_travels_but_ticks(setup: Setup) -> None:
    sent = rounds(setup, Online(setup.scenario), 2)
    assert max(map(len, sent)) < HEAD


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100])
def test_a_device_without_its_teacher_says_so(setup: Setup, content: bytes | None) -> None:
    path = Shelf(setup.assets).teacher_path
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert "the teacher can't be read" in answer(setup, 0, Online(setup.scenario).request(0, 1)).refusal


def test_the_teacher_is_trained_once_for_all_devices_and_resumes(setup: Setup) -> None:
    shelf = Shelf(setup.assets)
    before = shelf.teacher_path.stat().st_mtime_ns
    publish_teacher(setup.scenario, shelf)
    assert shelf.teacher_path.stat().st_mtime_ns == before


def test_the_labels_it_keeps_are_its_teachers_about_what_its_stream_has_brought(setup: Setup) -> None:
    shelf, scenario = Shelf(setup.assets), setup.scenario
    rounds(setup, Online(scenario), 3)
    stored = Disk(setup.device_states / "device-00000").load(3, lambda state: state)
    assert stored is not None
    own = shelf.of_device(0)
    found = arrived(scenario.stream, own.images, own.labels, 3, scenario.rounds, scenario.seed, 0)
    assert stored.more["rows"].tolist() == found.rows.tolist()
    assert scenario.teacher is not None
    task = load_task(scenario.task)
    teacher = restored(architecture(scenario.teacher.architecture), task, initial_teacher(scenario, shelf))
    np.testing.assert_allclose(stored.more["labels"].numpy(), predict(teacher, found.images, task), atol=1e-5)


def test_the_student_learns_no_true_label(setup: Setup, tmp_path: Path) -> None:
    half = Online(setup.scenario)
    rounds(setup, half, 1)
    path = setup.assets / "private-labels.npy"
    np.save(path, np.roll(np.load(path), 1))
    other = Setup(setup.scenario, setup.out, workers=1, engine="local")
    before = Disk(setup.device_states / "device-00000").load(1, lambda state: state)
    for file in (setup.device_states / "device-00000").iterdir():
        file.unlink()
    rounds(other, Online(setup.scenario), 1)
    after = Disk(setup.device_states / "device-00000").load(1, lambda state: state)
    assert before is not None
    assert after is not None
    assert all(torch.equal(after.student[name], value) for name, value in before.student.items())


def test_a_round_asked_twice_is_answered_from_what_was_done_and_the_half_resumes(setup: Setup) -> None:
    half = Online(setup.scenario)
    sent = rounds(setup, half, 2)
    reply = answer(setup, 0, sent[-1])
    assert reply == answer(setup, 0, sent[-1])
    assert 0 <= reply.metrics["prequential"] <= 1
    again = Online(setup.scenario)
    again.restore(half.stored())
    assert again.request(0, 3) == half.request(0, 3)
    assert again.request(2, 3) == half.request(2, 3)


def test_what_is_no_tick_of_this_run_is_refused(setup: Setup) -> None:
    half = Online(setup.scenario)
    good = half.request(0, 1)
    for content in (b"\xff" * 9, good, good + bytes(10**6)):
        with pytest.raises(PacketError):
            half.accept(0, 2, content)
        assert json.dumps(answer(setup, 3, good + bytes(10**6)).refusal)
