import numpy as np
import pytest

from fedstill.cache import LabelCache
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import ServerExchange, close_task, open_request
from fedstill.packet import Context
from fedstill.soft_labels import soft_labels

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


def test_a_device_that_was_not_asked_catches_up_with_draws_smaller_than_a_bitmap() -> None:
    context = Context(seed=5, proxy_digest=b"12345678", proxy_size=8000, classes=3)
    server = ServerExchange(context, per_round=10, rounds=5, encoding="simplex8")
    for round_number in (1, 2, 3):  # no teacher: nothing known before; two of three samples stay undecided
        decided = server.ids(round_number)[::3]
        server.publish(round_number, decided, rows(len(decided), round_number))
    for held in (0, 2):
        server.acknowledged[0] = held
        request = server.request(0, 4)
        assert len(request) < 150 < 8000 / 8
        before = LabelCache.empty(8000, 3)
        if held:
            first = server.cache.changed == 2
            before = before.filled(np.flatnonzero(first), server.cache.labels[first], held)
        after = open_request(context, before, request).cache
        assert after.version == 4
        assert np.array_equal(after.labels, server.cache.labels)


def test_a_round_that_decided_nothing_still_counts() -> None:
    server = exchange()
    server.publish(1, np.arange(0), rows(0))
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 2))
    assert task.cache.version == 2
    assert len(task.cache.known) == 0
