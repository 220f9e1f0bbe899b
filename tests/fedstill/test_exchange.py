import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import ServerExchange, close_task, open_request, said
from fedstill.packet import Context
from fedstill.soft_labels import soft_labels
from protos import soft_labels_pb2 as pb

CONTEXT = Context(seed=5, proxy_digest=b"12345678", proxy_size=40, classes=3)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)


def exchange() -> ServerExchange:
    return ServerExchange(CONTEXT, per_round=10, rounds=5)


def test_both_sides_hold_the_same_labels_after_each_round() -> None:
    server, device = exchange(), LabelCache.empty(40, 3)
    server.publish(0, np.arange(40), rows(40))
    for round_number in range(1, 4):
        task = open_request(CONTEXT, device, server.request(0, round_number))
        device = task.cache
        assert np.array_equal(device.labels, server.cache.labels)
        assert device.version == server.cache.version == round_number
        answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(10, round_number)), "float16")
        server.accept(0, round_number, answer)
        server.publish(round_number, task.predict, rows(10, 100 + round_number))


def test_a_device_that_missed_rounds_catches_up_with_one_packet() -> None:
    server = exchange()
    for round_number in range(3):
        ids = np.arange(40) if round_number == 0 else server.ids(round_number)
        server.publish(round_number, ids, rows(len(ids), round_number))
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 3))
    assert np.allclose(task.cache.labels, server.cache.labels, atol=1e-3)
    assert task.cache.version == 3


def test_a_device_that_lost_its_disk_refuses_and_is_served_in_full_once_it_told_so() -> None:
    server = exchange()
    server.publish(0, np.arange(40), rows(40))
    server.acknowledged[0] = 1
    server.publish(1, server.ids(1), rows(10))
    with pytest.raises(StaleCacheError) as caught:
        open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 2))
    server.acknowledged[0] = caught.value.held
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 2))
    assert len(task.cache.known) == 40


def test_a_rounds_consensus_travels_as_a_draw_not_as_a_list() -> None:
    server = exchange()
    server.publish(0, np.arange(40), rows(40))
    server.acknowledged[0] = 1
    small = len(server.request(0, 1))
    server.publish(1, server.ids(1), rows(10))
    request = server.request(0, 2)
    assert len(request) < small + 10 * 3 * 2 + 60


def test_an_answer_of_another_round_is_refused() -> None:
    server = exchange()
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16")
    with pytest.raises(PacketError, match="round 1"):
        server.accept(0, 2, answer)


def test_a_device_can_not_claim_a_version_that_does_not_exist() -> None:
    server = exchange()
    task = open_request(CONTEXT, LabelCache(*_known_cache(), version=9), server.request(0, 1))
    answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16")
    with pytest.raises(PacketError, match="claims cache version 9"):
        server.accept(0, 1, answer)
    assert server.acknowledged == {}


def _known_cache() -> tuple[np.ndarray, np.ndarray]:
    empty = LabelCache.empty(40, 3)
    return empty.labels, empty.changed


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x08\x01"])
def test_a_malformed_request_is_refused(content: bytes) -> None:
    with pytest.raises(PacketError):
        open_request(CONTEXT, LabelCache.empty(40, 3), content)


CLASS_ENCODINGS = {"tiny": "simplex1", "small": "simplex4", "logits": "logits16"}
CLASSES = {0: "large", 1: "tiny", 2: "small", 3: "logits", 4: "tiny"}


def served_by_class(*, delta: bool) -> ServerExchange:
    return ServerExchange(
        CONTEXT,
        per_round=20,
        rounds=50,
        encoding="simplex8",
        class_encodings=CLASS_ENCODINGS,
        entropy_coded=delta,
        delta=delta,
        device_classes=dict(CLASSES),
    )


@pytest.mark.parametrize("delta", [False, True])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_server_knows_what_each_class_of_devices_decoded_whatever_rounds_a_device_misses(
    delta: bool, data: st.DataObject
) -> None:
    server = served_by_class(delta=delta)
    devices = {device: LabelCache.empty(40, 3) for device in CLASSES}
    server.publish(0, np.arange(40), rows(40))
    for round_number in range(1, 6):
        for device in CLASSES:
            fate = data.draw(st.sampled_from(["answers", "misses", "answer lost", "disk lost"]))
            if fate == "misses":
                continue
            if fate == "disk lost":
                devices[device] = LabelCache.empty(40, 3)
            try:
                task = open_request(CONTEXT, devices[device], server.request(device, round_number))
            except StaleCacheError as error:
                server.acknowledged[device] = error.held
                continue
            devices[device] = task.cache
            encoding = CLASS_ENCODINGS.get(CLASSES[device], "simplex8")
            theirs = server.cache if encoding == "simplex8" else server.class_caches[encoding]
            assert np.array_equal(devices[device].labels, theirs.labels)
            assert devices[device].version == theirs.version
            if fate == "answers":
                answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(20, device)), "simplex8")
                server.accept(device, round_number, answer)
        ids = server.ids(round_number)
        server.publish(round_number, ids, rows(20, 100 + round_number))


def test_a_class_with_a_coarser_downlink_gets_fewer_bytes_and_others_the_same_as_ever() -> None:
    server, plain = served_by_class(delta=False), ServerExchange(CONTEXT, 20, 50, "simplex8")
    for exchange in (server, plain):
        exchange.publish(0, np.arange(40), rows(40))
    assert server.request(0, 1) == plain.request(0, 1)
    assert len(server.request(1, 1)) < len(server.request(2, 1)) < len(server.request(0, 1))


def delta_exchange() -> ServerExchange:
    return ServerExchange(CONTEXT, 40, 50, "simplex8", entropy_coded=True, delta=True)


class Answering:
    """A device's half with deltas: keeps what it said up to the acknowledged packet, and with its last one."""

    def __init__(self) -> None:
        self.cache = LabelCache.empty(40, 3)
        self.bases: list[Base] = []

    def answer(self, request: bytes, probabilities: np.ndarray) -> bytes:
        task = open_request(CONTEXT, self.cache, request)
        self.cache = task.cache
        base = next((base for base in self.bases if base.version == task.acknowledged), None)
        labels = soft_labels(task.predict, probabilities)
        latest = said(CONTEXT, base, labels, "simplex8", task.round_number)
        self.bases = [latest] if base is None else [base, latest]
        return close_task(CONTEXT, task, labels, "simplex8", entropy_coded=True, base=base)


def test_the_second_answer_is_a_delta_to_the_first_and_much_smaller() -> None:
    server, device = delta_exchange(), Answering()
    first = device.answer(server.request(0, 1), rows(40))
    server.accept(0, 1, first)
    second = device.answer(server.request(0, 2), rows(40))
    accepted = server.accept(0, 2, second)
    assert len(second) < len(first) - 40
    assert np.abs(accepted.probabilities - rows(40)).max() < 1 / 255


def test_an_answer_that_never_arrived_is_not_referred_to() -> None:
    server, device = delta_exchange(), Answering()
    server.accept(0, 1, device.answer(server.request(0, 1), rows(40, 1)))
    device.answer(server.request(0, 2), rows(40, 2))  # lost on its way
    accepted = server.accept(0, 3, device.answer(server.request(0, 3), rows(40, 3)))
    assert np.abs(accepted.probabilities - rows(40, 3)).max() < 1 / 255
    assert server.bases[0].version == 3


@pytest.mark.parametrize("loser", ["device", "server"])
def test_a_side_that_lost_the_base_is_served_in_full_and_the_next_answer_is_a_delta_again(loser: str) -> None:
    server, device = delta_exchange(), Answering()
    full = device.answer(server.request(0, 1), rows(40))
    server.accept(0, 1, full)
    if loser == "device":
        device.bases = []
    else:
        server.bases = {}
    again = device.answer(server.request(0, 2), rows(40))
    server.accept(0, 2, again)
    third = device.answer(server.request(0, 3), rows(40))
    server.accept(0, 3, third)
    assert len(again) > len(third) + 40


def test_a_delta_to_other_labels_than_the_servers_is_refused_and_the_next_request_asks_for_a_full_packet() -> None:
    server, device = delta_exchange(), Answering()
    server.accept(0, 1, device.answer(server.request(0, 1), rows(40)))
    device.bases = [device.bases[0].extended(soft_labels(np.arange(4), rows(4, 9)), 1)]
    with pytest.raises(PacketError, match="other labels"):
        server.accept(0, 2, device.answer(server.request(0, 2), rows(40)))
    server.accept(0, 3, device.answer(server.request(0, 3), rows(40)))


def test_a_cache_whose_labels_went_wrong_is_mended_with_everything() -> None:
    server, device = delta_exchange(), Answering()
    server.publish(0, np.arange(40), rows(40))
    server.accept(0, 1, device.answer(server.request(0, 1), rows(40)))
    server.publish(1, server.ids(1), np.concatenate([rows(38), rows(2, 2)]))
    device.cache = LabelCache(device.cache.labels[::-1].copy(), device.cache.changed, device.cache.version)
    with pytest.raises(StaleCacheError) as caught:
        device.answer(server.request(0, 2), rows(40))
    server.acknowledged[0] = caught.value.held
    device.answer(server.request(0, 2), rows(40))
    assert np.array_equal(device.cache.labels, server.cache.labels)


def test_without_delta_nothing_is_kept_of_what_devices_said() -> None:
    server = exchange()
    server.publish(0, np.arange(40), rows(40))
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    server.accept(0, 1, close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16"))
    assert server.bases == {}
    assert server.previous == {}


def test_a_delta_in_an_encoding_that_does_not_suit_the_classes_is_refused() -> None:
    server = delta_exchange()
    for version in range(2):
        server.publish(version, np.arange(40), rows(40))
        server.acknowledged[0] = version
    request = pb.RoundRequest.FromString(server.request(0, 2))
    assert request.consensus.HasField("base_checksum")
    request.consensus.encoding, request.consensus.parameter = pb.TOP_K, 3
    with pytest.raises(PacketError, match="unknown encoding 6 with parameter 3"):
        open_request(CONTEXT, server.previous["simplex8"], request.SerializeToString())
