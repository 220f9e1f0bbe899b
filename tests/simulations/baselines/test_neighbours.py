"""Label-cache transfer: from the k nearest devices alone, one hop a round, and never from a server but at the start."""

from pathlib import Path

import numpy as np
import pytest

from client.disk import Disk
from fedstill.cache import LabelCache
from fedstill.errors import PacketError
from fedstill.soft_labels import Floats, soft_labels
from fedstill.stored import load_cache
from protos import baselines_pb2 as pb
from simulations.baselines.neighbours import Relay, answer, copied, nearest_devices, served
from simulations.methods import load_method
from simulations.setup import Setup
from simulations.shelf import Shelf, open_shelf

DEVICES = 4


@pytest.fixture
def setup(small_options: list[str], tmp_path: Path) -> Setup:
    changes = [*small_options[1::2], "method.neighbours=2", "stream.window=1"]
    scenario = load_method("digits", "neighbours", changes)
    open_shelf(tmp_path / "run" / "assets", scenario)
    return Setup(scenario, tmp_path / "run", workers=1, engine="local")


def rounds(setup: Setup, half: Relay, first: int, last: int) -> dict[int, bytes]:
    """Let all devices answer rounds `first` to `last`, and return the last answers."""
    answers: dict[int, bytes] = {}
    for number in range(first, last + 1):
        replies = {device: answer(setup, device, half.request(device, number)) for device in range(DEVICES)}
        assert not any(reply.refusal for reply in replies.values())
        answers = {device: half.accept(device, number, reply.packet) for device, reply in replies.items()}
        half.conclude(number, answers)
    return answers


def test_each_device_has_its_k_nearest_or_all_others() -> None:
    found = nearest_devices(seed=0, devices=6, count=3)
    assert found == nearest_devices(seed=0, devices=6, count=3) != nearest_devices(seed=1, devices=6, count=3)
    assert all(len(set(own)) == 3 and device not in own for device, own in enumerate(found))
    assert nearest_devices(0, 3, 9) == [own[:2] for own in nearest_devices(0, 3, 2)]


def test_a_device_gets_its_neighbours_packets_and_of_the_server_only_the_start(setup: Setup) -> None:
    half = Relay(setup.scenario, Shelf(setup.assets))
    first = pb.Neighbours.FromString(half.request(0, 1))
    assert first.start
    assert not first.labels
    answers = rounds(setup, half, 1, 1)
    nearest = nearest_devices(setup.scenario.seed, DEVICES, 2)
    for device in range(DEVICES):
        message = pb.Neighbours.FromString(half.request(device, 2))
        assert list(message.labels) == [answers[other] for other in nearest[device]]
        assert not message.start


def test_nobody_but_a_neighbour_changes_what_a_device_learns(setup: Setup) -> None:
    half = Relay(setup.scenario, Shelf(setup.assets))
    answers = rounds(setup, half, 1, 1)
    nearest = nearest_devices(setup.scenario.seed, DEVICES, 2)[0]
    stranger = next(device for device in range(1, DEVICES) if device not in nearest)
    before = half.request(0, 2)
    half.conclude(1, {**answers, stranger: answers[nearest[0]]})
    assert half.request(0, 2) == before
    half.conclude(1, {**answers, nearest[0]: answers[stranger]})
    assert half.request(0, 2) != before


def test_a_label_spreads_one_hop_in_a_round() -> None:
    """A line of devices, each copying from those beside it; only the first one's student knows the class."""
    chain, known = 5, np.eye(3, dtype=np.float32)[:1]
    vague: Floats = np.full((1, 3), 1 / 3, dtype=np.float32)
    ids = np.zeros(1, dtype=np.int64)
    caches = [LabelCache.empty(1, 3) for _ in range(chain)]
    told: list[Floats] = []
    for number in range(1, chain):
        beside = [[other for other in (device - 1, device + 1) if 0 <= other < chain] for device in range(chain)]
        if told:
            caches = [
                copied(cache, [soft_labels(ids, told[other]) for other in beside[device]], number)
                for device, cache in enumerate(caches)
            ]
        told = [served(cache, ids, known if not device else vague, 2) for device, cache in enumerate(caches)]
        reached = [bool(labels[0, 0] > 1 / 3 + 1e-6) for labels in told]
        assert reached == [device < number for device in range(chain)]


def test_what_neighbours_tell_is_averaged_and_abstentions_do_not_count() -> None:
    ids = np.array([0, 1], dtype=np.int64)
    one = soft_labels(ids, np.array([[1, 0], [1, 0]], dtype=np.float32))
    two = soft_labels(ids, np.array([[0, 1], [0, 1]], dtype=np.float32), present=np.array([True, False]))
    cache = copied(LabelCache.empty(3, 2), [one, two], 5)
    assert cache.labels.tolist() == [[0.5, 0.5], [1, 0], [0, 0]]
    assert cache.known.tolist() == [0, 1]


def test_a_device_that_lost_its_disk_says_so_and_starts_anew(setup: Setup) -> None:
    half = Relay(setup.scenario, Shelf(setup.assets))
    rounds(setup, half, 1, 1)
    for file in (setup.device_states / "device-00002").iterdir():
        file.unlink()
    reply = answer(setup, 2, half.request(2, 2))
    assert reply.refusal == "the teacher's labels are not here yet"
    half.refused(2, reply.held_version)
    assert not answer(setup, 2, half.request(2, 2)).refusal
    stored = Disk(setup.device_states / "device-00002").load(2, lambda state: state)
    assert stored is not None
    assert len(load_cache(stored.more).known) == setup.scenario.data.proxy_samples


def test_the_relay_resumes_and_forged_messages_are_refused(setup: Setup) -> None:
    half = Relay(setup.scenario, Shelf(setup.assets))
    answers = rounds(setup, half, 1, 1)
    again = Relay(setup.scenario, Shelf(setup.assets))
    again.restore(half.stored())
    assert again.request(1, 2) == half.request(1, 2)
    with pytest.raises(PacketError):
        half.accept(0, 2, answers[0])  # of another round
    message = pb.Neighbours.FromString(half.request(0, 2))
    message.labels.append(message.labels[0])
    assert "2 at most" in answer(setup, 0, message.SerializeToString()).refusal
    del message.labels[1:]
    message.labels[0] = message.labels[0][:-1]
    assert answer(setup, 0, message.SerializeToString()).refusal
