from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from simulations.baselines import fd
from simulations.baselines.fd import FD, answer, loss_of
from simulations.baselines.label_vectors import LabelVectors
from simulations.methods import load_method
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def setup(small_options: list[str], tmp_path: Path) -> Setup:
    scenario = load_method("digits", "fd", small_options[1::2])
    setup = Setup(scenario, tmp_path, 1, "local")
    open_shelf(setup.assets, scenario)
    return setup


def played(setup: Setup, rounds: int) -> FD:
    half = FD(setup.scenario, 10)
    for number in range(1, rounds + 1):
        found = {
            device: answer(setup, device, half.request(device, number)) for device in range(setup.scenario.devices)
        }
        half.conclude(number, {device: half.accept(device, number, reply.packet) for device, reply in found.items()})
    return half


def test_the_loss_is_cross_entropy_and_gamma_times_that_with_the_labels_vector() -> None:
    vectors = np.random.default_rng(0).dirichlet(np.ones(3), 3).astype(np.float32)
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    loss = loss_of(LabelVectors(vectors, np.ones(3, np.bool_)), gamma=0.5)
    soft = -(torch.from_numpy(vectors)[labels] * F.log_softmax(logits, dim=1)).sum(dim=1)
    hard = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(loss(logits, labels), (hard + 0.5 * soft).mean())


def test_a_sample_whose_label_has_no_vector_is_learned_from_its_label_alone() -> None:
    present = np.array([True, False, False])
    vectors = np.where(present[:, None], np.float32(1 / 3), 0).astype(np.float32)
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    found = loss_of(LabelVectors(vectors, present), gamma=2.0)(logits, labels)
    soft = -F.log_softmax(logits[:1], dim=1).mean()
    torch.testing.assert_close(found, F.cross_entropy(logits, labels) + 2.0 * soft / 4)
    nothing = loss_of(LabelVectors(0 * vectors, np.zeros(3, np.bool_)), gamma=2.0)
    torch.testing.assert_close(nothing(logits, labels), F.cross_entropy(logits, labels))


def test_a_device_sends_vectors_of_the_classes_it_holds_and_no_others(setup: Setup) -> None:
    half = FD(setup.scenario, 10)
    found = half.accept(0, 1, answer(setup, 0, half.request(0, 1)).packet)
    held = np.bincount(Shelf(setup.assets).of_device(0).labels, minlength=10) > 0
    np.testing.assert_array_equal(found.present, held)


def test_the_server_goes_on_from_what_it_stored(setup: Setup) -> None:
    half = played(setup, 1)
    other = FD(setup.scenario, 10)
    other.restore(half.stored())
    assert [other.request(device, 2) for device in range(4)] == [half.request(device, 2) for device in range(4)]


def test_asking_a_round_twice_repeats_the_answer_without_training_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = played(setup, 1).request(0, 2)
    first = answer(setup, 0, request)

    def no_training(*arguments: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(fd, "fit", no_training)
    assert answer(setup, 0, request) == first


def test_gamma_is_heard(setup: Setup) -> None:
    half = played(setup, 1)
    request = half.request(0, 2)
    method = setup.scenario.method.model_copy(update={"gamma": 0.0})
    deaf = Setup(setup.scenario.model_copy(update={"method": method}), setup.out, 1, "local")
    first = answer(deaf, 0, request)
    (setup.device_states / "device-00000" / "round-00002.state").unlink()
    assert answer(setup, 0, request).packet != first.packet


def test_a_bad_request_is_refused(setup: Setup) -> None:
    assert "can't be parsed" in answer(setup, 0, b"\xff\xff").refusal
