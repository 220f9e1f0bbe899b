from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.device import Device
from client.disk import packed, unpacked
from fedstill.cache import LabelCache
from fedstill.exchange import ServerExchange, open_request
from fedstill.learning import Lesson
from fedstill.packet import decode
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import SoftLabels
from fedstill.tasks import load_task
from simulations.host import make_device
from simulations.scenario import Scenario
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def shelf(small: Scenario, tmp_path: Path) -> Shelf:
    return open_shelf(tmp_path / "assets", small)


def server_of(scenario: Scenario, shelf: Shelf) -> ServerExchange:
    wire = scenario.exchange
    context = shelf.context(scenario.seed, 10)
    exchange = ServerExchange(context, wire.per_round, scenario.rounds, wire.downlink, wire.duration)
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

    monkeypatch.setattr("client.device.teach", no_training)
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
    (tmp_path / "d" / "device-00000").mkdir(parents=True)
    (tmp_path / "d" / "device-00000" / ".round-00001.state.99.tmp").write_bytes(b"of a process that was killed")
    for round_number in range(1, 5):
        finish(exchange, round_number, own.answer(exchange.request(0, round_number)))
    assert sorted(path.name for path in (tmp_path / "d" / "device-00000").iterdir()) == [
        "round-00003.state",
        "round-00004.state",
    ]


def test_a_server_that_was_restored_from_a_backup_gets_a_device_that_goes_on_from_what_it_repeats(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    scenario = small.model_copy(update={"rounds": 5})
    exchange, own = server_of(scenario, shelf), device(scenario, shelf, tmp_path / "d")
    for round_number in range(1, 6):
        finish(exchange, round_number, own.answer(exchange.request(0, round_number)))
    restored = server_of(scenario, shelf)
    for round_number in range(1, 4):
        finish(restored, round_number, own.answer(restored.request(0, round_number)))
        assert (tmp_path / "d" / "device-00000" / f"round-{round_number:05d}.state").exists()
    assert not own.answer(restored.request(0, 4)).refusal


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

    def spy(model: object, lesson: Lesson, task: object) -> None:
        fitted.append(len(lesson.images))

    monkeypatch.setattr("client.device.teach", spy)
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
    stored = (tmp_path / "d" / "device-00000" / "round-00001.state").read_bytes()
    assert load_task(small.task).input_shape == (1, 8, 8)
    assert not any(image.tobytes() in stored for image in shelf.of_device(0).images)


@pytest.fixture
def caching(small: Scenario) -> Scenario:
    """A scenario of eight rounds that draw half of the proxy set each, and whose consensus lasts three."""
    wire = small.exchange.model_copy(update={"duration": 3})
    return small.model_copy(update={"rounds": 8, "exchange": wire})


def served(exchange: ServerExchange, own: Device, round_number: int) -> DeviceAnswer:
    """Ask the device about a round, as the strategy does: a refusal is noted, an answer concluded."""
    answer = own.answer(exchange.request(0, round_number))
    if answer.refusal:
        exchange.acknowledged[0] = answer.held_version
        missed(exchange, round_number)
    else:
        finish(exchange, round_number, answer)
    return answer


def missed(exchange: ServerExchange, round_number: int) -> None:
    """Finish a round without the device."""
    ids = exchange.ids(round_number)
    rows = np.random.default_rng(round_number).dirichlet(np.ones(10), len(ids)).astype(np.float32)
    exchange.publish(round_number, ids, rows)


def test_a_device_digests_no_consensus_that_has_reached_the_duration(
    caching: Scenario, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, own = server_of(caching, shelf), device(caching, shelf, tmp_path)
    digested: list[np.ndarray] = []
    dropped = 0
    monkeypatch.setattr("client.device.teach", lambda model, lesson, task: digested.append(lesson.images))
    for round_number in range(1, 7):
        cache, asked = exchange.cache, exchange.ids(round_number)
        served(exchange, own, round_number)
        made = cache.changed - 1
        young = np.flatnonzero((made == 0) | (round_number - made < 3))
        expected = shelf.proxy[np.setdiff1d(young, asked)]
        assert np.array_equal(digested[-2], expected)  # the last fit is the revisit
        dropped += len(shelf.proxy) - len(young)
    assert dropped > 0


def test_a_device_that_missed_rounds_goes_on_with_the_servers_labels(
    caching: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange, own = server_of(caching, shelf), device(caching, shelf, tmp_path)
    assert not served(exchange, own, 1).refusal
    for round_number in range(2, 5):
        missed(exchange, round_number)
    assert not served(exchange, own, 5).refusal
    assert not served(exchange, own, 6).refusal


def test_a_device_that_lost_its_disk_costs_one_round_and_goes_on(
    caching: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange = server_of(caching, shelf)
    for round_number in range(1, 4):
        served(exchange, device(caching, shelf, tmp_path / "old"), round_number)
    refusals = [bool(served(exchange, device(caching, shelf, tmp_path / "new"), place).refusal) for place in (4, 5, 6)]
    assert refusals == [True, False, False]


def test_a_device_learns_in_a_round_in_which_nothing_is_due(caching: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    wire = caching.exchange.model_copy(update={"per_round": len(shelf.proxy)})
    everything = caching.model_copy(update={"exchange": wire})
    exchange, own = server_of(everything, shelf), device(everything, shelf, tmp_path)
    served(exchange, own, 1)
    before = unpacked((tmp_path / "device-00000" / "round-00001.state").read_bytes()).student
    answer = served(exchange, own, 2)
    assert len(decode(exchange.context, answer.packet, changed=exchange.cache.changed).labels.ids) == 0
    after = unpacked((tmp_path / "device-00000" / "round-00002.state").read_bytes()).student
    assert any(not torch.equal(before[name], after[name]) for name in before)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in a parameter or a label: the file stays readable
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip])
def test_a_damaged_state_is_passed_over_and_the_device_catches_up(
    damage: Callable[[Path], None], caching: Scenario, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exchange, own = server_of(caching, shelf), device(caching, shelf, tmp_path)
    for round_number in range(1, 4):
        served(exchange, own, round_number)
    damage(tmp_path / "device-00000" / "round-00003.state")
    refused = served(exchange, own, 4)
    assert refused.refusal
    assert refused.held_version == 2  # that of round 2, the state before
    assert "round-00003.state can't be read and is passed over" in caplog.text
    assert not served(exchange, own, 5).refusal
    damage(tmp_path / "device-00000" / "round-00005.state")
    nothing = served(exchange, own, 6)
    assert nothing.refusal
    assert nothing.held_version == 0
    assert not served(exchange, own, 7).refusal


def test_labels_that_changed_on_the_devices_disk_are_noticed_and_replaced(
    caching: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange, own = server_of(caching, shelf), device(caching, shelf, tmp_path)
    served(exchange, own, 1)
    path = tmp_path / "device-00000" / "round-00001.state"
    stored = unpacked(path.read_bytes())
    stored.more["labels"][5] = stored.more["labels"][5].flip(0)
    path.write_bytes(packed(stored))
    wrong = served(exchange, own, 2)
    assert "not the server's" in wrong.refusal
    assert wrong.held_version == 0
    assert not served(exchange, own, 3).refusal


def test_the_full_packet_after_a_refusal_leaves_nothing_of_the_old_cache(
    caching: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange, own = server_of(caching, shelf), device(caching, shelf, tmp_path)
    served(exchange, own, 1)
    path = tmp_path / "device-00000" / "round-00001.state"
    stored = unpacked(path.read_bytes())
    stored.more["changed"].add_(1)
    path.write_bytes(packed(stored))
    served(exchange, own, 2)
    full = exchange.request(0, 3)
    expected = open_request(exchange.context, LabelCache.empty(len(shelf.proxy), 10), full).cache
    assert not served(exchange, own, 3).refusal
    kept = unpacked((tmp_path / "device-00000" / "round-00003.state").read_bytes()).more
    assert np.array_equal(kept["labels"].numpy(), expected.labels)
    assert np.array_equal(kept["changed"].numpy(), expected.changed)


def test_a_device_with_deltas_answers_the_same_in_fewer_bytes_and_survives_a_restart(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    settled = small.device.revisit.model_copy(update={"learning_rate": 1e-6, "min_steps": 60})
    slow = {"digest": settled, "revisit": settled}
    received: dict[bool, np.ndarray] = {}
    sizes: dict[bool, int] = {}
    for delta in (False, True):
        whole = {"per_round": small.data.proxy_samples, "uplink": "simplex8", "entropy_coding": True, "delta": delta}
        wire = small.exchange.model_copy(update=whole)
        scenario = small.model_copy(update={"exchange": wire, "device": small.device.model_copy(update=slow)})
        shared = shelf.context(scenario.seed, 10)
        exchange = ServerExchange(shared, wire.per_round, 3, "simplex8", entropy_coded=True, delta=delta)
        for round_number in (1, 2, 3):
            own = device(scenario, shelf, tmp_path / str(delta))  # as after a restart
            answer = own.answer(exchange.request(0, round_number))
            received[delta] = exchange.accept(0, round_number, answer.packet).probabilities
            sizes[delta] = len(answer.packet)
    assert np.array_equal(received[True], received[False])
    assert sizes[True] < sizes[False] / 2


def test_with_certainty_by_background_a_device_votes_among_its_own_classes_and_abstains_where_unsure(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange = server_of(small, shelf)

    def vote(abstain_below: float) -> tuple[SoftLabels, DeviceAnswer]:
        changes = {"certainty": "background", "abstain_below": abstain_below}
        scenario = small.model_copy(update={"device": small.device.model_copy(update=changes)})
        answer = device(scenario, shelf, tmp_path / str(abstain_below)).answer(exchange.request(0, 1))
        return decode(exchange.context, answer.packet, round_number=1, ids=exchange.ids(1)).labels, answer

    everything, answer = vote(0.0)
    held = np.bincount(shelf.of_device(0).labels, minlength=10) > 0
    assert everything.present.all()
    assert not everything.probabilities[:, ~held].any()
    assert everything.certainty is not None
    assert answer.metrics["samples"] == 2 * small.device.first_digest.batch * answer.metrics["steps"]
    limit = float(np.median(everything.certainty))
    some, _ = vote(limit)
    assert np.abs(some.present.astype(float) - (everything.certainty >= limit)).sum() <= 2  # a byte rounds


def test_with_certainty_by_k_means_a_device_learns_as_ever_and_is_silent_outside_its_domain(
    small: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    exchange = server_of(small, shelf)

    def vote(**changes: object) -> SoftLabels:
        scenario = small.model_copy(update={"device": small.device.model_copy(update=changes)})
        answer = device(scenario, shelf, tmp_path / str(len(changes))).answer(exchange.request(0, 1))
        return decode(exchange.context, answer.packet, round_number=1, ids=exchange.ids(1)).labels

    plain, sent = vote(), vote(certainty="k-means")
    assert np.array_equal(plain.probabilities, sent.probabilities)
    assert sent.certainty is not None
    limit = float(np.median(sent.certainty)) + 0.01  # between two of its steps, wider than a byte rounds
    silent = vote(certainty="k-means", abstain_below=limit, send_certainty=False)
    assert silent.certainty is None
    assert np.array_equal(silent.present, sent.certainty >= limit)
    assert 0 < silent.present.sum() < len(silent.present)
