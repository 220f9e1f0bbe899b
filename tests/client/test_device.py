from pathlib import Path

import numpy as np
import pytest
import torch

from client.device import Device
from fedstill.exchange import ServerExchange
from fedstill.packet import decode
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import load_task
from simulations.host import make_device
from simulations.scenario import Scenario
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def shelf(small: Scenario, tmp_path: Path) -> Shelf:
    return open_shelf(tmp_path / "assets", small)


def server_of(scenario: Scenario, shelf: Shelf) -> ServerExchange:
    exchange = ServerExchange(
        shelf.context(scenario.seed, 10), scenario.exchange.per_round, scenario.rounds, scenario.exchange.downlink
    )
    rows = np.random.default_rng(0).dirichlet(np.ones(10), len(shelf.proxy)).astype(np.float32)
    exchange.publish(0, np.arange(len(shelf.proxy)), rows)
    return exchange


def finish(exchange: ServerExchange, round_number: int, answer: DeviceAnswer) -> None:
    labels = exchange.accept(0, round_number, answer.packet)
    exchange.publish(round_number, labels.ids, labels.probabilities)


def device(scenario: Scenario, shelf: Shelf, folder: Path) -> Device:
    return make_device(scenario, shelf, 0, folder)


def test_a_device_answers_about_the_asked_samples_with_its_class_prior(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange = server_of(small, shelf)
    answer = device(small, shelf, tmp_path).answer(exchange.request(0, 1))
    labels = decode(exchange.context, answer.packet, round_number=1, ids=exchange.ids(1)).labels
    assert labels.class_prior is not None
    counts = np.bincount(shelf.of_device(0).labels, minlength=10)
    assert np.abs(labels.class_prior - counts / counts.sum()).max() < 1 / 200
    assert 0 <= answer.metrics["accuracy"] <= 1


def test_asking_a_round_twice_repeats_the_answer_without_training_again(
    small: Scenario, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = server_of(small, shelf).request(0, 1)
    first = device(small, shelf, tmp_path).answer(request)

    def no_training(*arguments: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr("client.device.revisit", no_training)
    assert device(small, shelf, tmp_path).answer(request) == first


def test_a_device_restarted_between_rounds_goes_on_as_if_it_had_not_been(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    answers = []
    for restarted in (True, False):
        exchange, folder = server_of(small, shelf), tmp_path / str(restarted)
        same = device(small, shelf, folder)
        finish(exchange, 1, same.answer(exchange.request(0, 1)))
        second = device(small, shelf, folder) if restarted else same
        answers.append(second.answer(exchange.request(0, 2)))
    assert answers[0] == answers[1]


def test_a_device_that_lost_its_disk_refuses_and_tells_its_version(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange = server_of(small, shelf)
    finish(exchange, 1, device(small, shelf, tmp_path / "old").answer(exchange.request(0, 1)))
    answer = device(small, shelf, tmp_path / "new").answer(exchange.request(0, 2))
    assert answer.refusal
    assert answer.packet == b""
    assert answer.held_version == 0
    exchange.acknowledged[0] = answer.held_version
    assert not device(small, shelf, tmp_path / "new").answer(exchange.request(0, 2)).refusal


@pytest.mark.parametrize("request_bytes", [b"", b"\xff", b"\x08\x01\x10\x05\x18\x01\x20\x01"])
def test_a_malformed_request_is_refused_and_changes_nothing(
    request_bytes: bytes, small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    answer = device(small, shelf, tmp_path / "d").answer(request_bytes)
    assert answer.refusal
    assert not (tmp_path / "d").exists()


def test_only_the_last_two_rounds_stay_on_the_devices_disk(small: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    scenario = small.model_copy(update={"rounds": 4})
    exchange, own = server_of(scenario, shelf), device(scenario, shelf, tmp_path / "d")
    for round_number in range(1, 5):
        finish(exchange, round_number, own.answer(exchange.request(0, round_number)))
    assert sorted(path.name for path in (tmp_path / "d" / "device-00000").iterdir()) == [
        "round-00003.pt",
        "round-00004.pt",
    ]


def test_a_device_abstains_where_it_is_less_sure_than_asked_for(small: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    exchange = server_of(small, shelf)
    everything = device(small, shelf, tmp_path / "all").answer(exchange.request(0, 1))
    certain = decode(exchange.context, everything.packet).labels.probabilities.max(axis=1)
    threshold = float(np.median(certain))
    settings = small.device.model_copy(update={"abstain_below": threshold})
    scenario = small.model_copy(update={"device": settings})
    answer = device(scenario, shelf, tmp_path / "some").answer(exchange.request(0, 1))
    labels = decode(exchange.context, answer.packet).labels
    assert 0 < labels.present.sum() < len(labels.present)
    assert certain[labels.present].min() >= threshold - 0.01
    assert (labels.probabilities[~labels.present] == 0).all()


def test_the_digest_leaves_out_the_samples_that_the_round_asks_about(
    small: Scenario, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    import client.device as module

    def spy(model: object, images: np.ndarray, targets: torch.Tensor, *rest: object) -> None:
        fitted.append(len(images))

    monkeypatch.setattr(module, "fit", spy)
    exchange = server_of(small, shelf)
    device(small, shelf, tmp_path).answer(exchange.request(0, 1))
    asked = small.exchange.per_round
    assert fitted == [len(shelf.proxy) - asked, len(shelf.of_device(0).labels)]


def test_an_anchored_revisit_forgets_less_of_the_consensus(small: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    revisit = small.device.revisit.model_copy(update={"min_steps": 60})
    divergence = {}
    for weight in (0.0, 2.0):
        changes = {"revisit": revisit, "anchor_weight": weight, "logit_adjustment": 0.0}
        scenario = small.model_copy(update={"device": small.device.model_copy(update=changes)})
        exchange = server_of(scenario, shelf)
        answer = device(scenario, shelf, tmp_path / str(weight)).answer(exchange.request(0, 1))
        labels = decode(exchange.context, answer.packet).labels
        said = np.maximum(labels.probabilities, 1e-6)
        average = exchange.cache.labels.mean(axis=0)
        divergence[weight] = float((average * np.log(average / said.mean(axis=0))).sum())
    assert divergence[2.0] < divergence[0.0]


def test_private_samples_never_enter_the_devices_state_file(small: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    exchange = server_of(small, shelf)
    device(small, shelf, tmp_path / "d").answer(exchange.request(0, 1))
    stored = (tmp_path / "d" / "device-00000" / "round-00001.pt").read_bytes()
    assert load_task(small.task).input_shape == (1, 8, 8)
    assert not any(image.tobytes() in stored for image in shelf.of_device(0).images)
