from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import RoundTask, ServerExchange, close_task, open_request, said
from fedstill.packet import Context, check, encode
from fedstill.soft_labels import draw, soft_labels
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


@pytest.mark.parametrize("downlink", ["float32", "float16"])
def test_labels_at_the_edge_of_what_an_encoding_rounds_to_are_published_and_end_no_run(downlink: str) -> None:
    server, device = ServerExchange(CONTEXT, 10, 5, downlink), LabelCache.empty(40, 3)
    server.publish(0, np.arange(40), rows(40))
    task = open_request(CONTEXT, device, server.request(0, 1))
    sent = close_task(CONTEXT, task, soft_labels(task.predict, rows(10, 1) * np.float32(1.0015)), "float16")
    heard = server.accept(0, 1, sent)
    assert heard.probabilities.sum(axis=1).max() > 1.001
    server.publish(1, heard.ids, heard.probabilities)
    assert np.allclose(server.cache.labels.sum(axis=1), 1, atol=2e-3 if downlink == "float16" else 1e-6)
    device = open_request(CONTEXT, task.cache, server.request(0, 2)).cache
    assert np.array_equal(device.labels, server.cache.labels)


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


@pytest.mark.parametrize("agreed", [True, False])
def test_shares_of_classes_are_heard_only_in_a_run_in_which_all_tell_theirs(agreed: bool) -> None:
    server = ServerExchange(CONTEXT, 10, 5, priors=agreed)
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    claim = np.eye(3, dtype=np.float32)[0]
    said = server.accept(
        0, 1, close_task(CONTEXT, task, soft_labels(task.predict, rows(10), class_prior=claim), "float16")
    )
    assert (said.class_prior is not None) == agreed


def test_an_answer_of_another_round_is_refused() -> None:
    server = exchange()
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16")
    with pytest.raises(PacketError, match="round 1"):
        server.accept(0, 2, answer)


def test_a_device_can_not_claim_a_version_that_does_not_exist() -> None:
    server = exchange()
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    liar = replace(task, cache=replace(task.cache, version=9))
    answer = close_task(CONTEXT, liar, soft_labels(task.predict, rows(10)), "float16")
    with pytest.raises(PacketError, match="claims cache version 9"):
        server.accept(0, 1, answer)
    assert server.acknowledged == {}


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x08\x01"])
def test_a_malformed_request_is_refused(content: bytes) -> None:
    with pytest.raises(PacketError):
        open_request(CONTEXT, LabelCache.empty(40, 3), content)


def caching(duration: int = 4, per_round: int = 10, encoding: str = "float16") -> ServerExchange:
    """A server whose consensus lasts `duration` rounds, with the teacher's labels published."""
    server = ServerExchange(CONTEXT, per_round, 200, encoding, duration, independent=True)
    server.publish(0, np.arange(40), rows(40))
    return server


def play(server: ServerExchange, device: LabelCache, round_number: int) -> tuple[RoundTask, LabelCache]:
    """Let a device answer a round and the server publish its consensus."""
    task = open_request(CONTEXT, device, server.request(0, round_number))
    labels = soft_labels(task.predict, rows(len(task.predict), round_number))
    server.accept(0, round_number, close_task(CONTEXT, task, labels, "float16"))
    server.publish(round_number, task.predict, rows(len(task.predict), 1000 + round_number))
    return task, task.cache


def test_both_sides_derive_the_same_due_samples_and_hold_equal_caches_over_many_rounds() -> None:
    server, device = caching(), LabelCache.empty(40, 3)
    asked = 0
    for round_number in range(1, 60):
        before = server.cache
        task, device = play(server, device, round_number)
        assert np.array_equal(device.labels, before.labels)
        assert np.array_equal(device.changed, before.changed)
        asked += len(task.predict)
    assert 0.4 < asked / 590 < 0.7  # 4 / 7: drawn every 4 rounds, asked every 3 + 4


def test_a_label_is_asked_again_at_exactly_the_duration_and_the_fresh_one_counts_at_once_on_both_sides() -> None:
    server = ServerExchange(CONTEXT, per_round=40, rounds=20, duration=3)  # every round draws everything
    server.publish(0, np.arange(40), rows(40))
    device = LabelCache.empty(40, 3)
    asked = []
    for round_number in range(1, 9):
        task, device = play(server, device, round_number)
        asked.append(len(task.predict))
    assert asked == [40, 0, 0, 40, 0, 0, 40, 0]
    fresh = server.cache
    assert fresh.changed.tolist() == [8] * 40  # the consensus of round 7
    assert np.abs(fresh.labels - rows(40, 1007)).max() < 1e-3
    task, device = play(server, device, 9)
    assert np.array_equal(device.labels, fresh.labels)
    assert len(task.usable) == 40


def test_no_consensus_that_a_device_or_the_server_learns_from_has_reached_the_duration() -> None:
    server, device = caching(), LabelCache.empty(40, 3)
    dropped = 0
    for round_number in range(1, 60):
        task, device = play(server, device, round_number)
        for cache, usable in ((device, task.usable), (server.cache, server.cache.usable(round_number, 4))):
            made = cache.changed[usable] - 1  # the round of each label, 0: the teacher's own
            assert (round_number - made[made > 0] < 4).all()
            dropped += len(cache.known) - len(usable)
    assert dropped > 0


def test_a_round_in_which_nothing_is_due_is_a_round_like_any_other() -> None:
    server, device = caching(duration=1000, per_round=40), LabelCache.empty(40, 3)
    _, device = play(server, device, 1)
    task, device = play(server, device, 2)
    assert len(task.predict) == 0
    assert len(task.usable) == 40
    assert server.acknowledged == {0: 2}
    assert play(server, device, 3)[1].version == server.cache.version - 1 == 3


def test_which_samples_are_due_costs_no_bytes() -> None:
    context = replace(CONTEXT, proxy_size=4000)  # a bitmap would have 500 bytes
    beside_labels = []
    for duration in (0, 50):
        server = ServerExchange(context, 400, 200, duration=duration, independent=True)
        server.publish(0, np.arange(4000), rows(4000))
        server.acknowledged[0] = 1
        cache = server.cache
        server.publish(1, server.ids(1), rows(400))
        task = open_request(context, cache, server.request(0, 2))
        server.publish(2, task.predict, rows(len(task.predict)))
        server.acknowledged[0] = 2
        request = server.request(0, 3)
        task = open_request(context, task.cache, request)
        answer = close_task(context, task, soft_labels(task.predict, rows(len(task.predict))), "float16")
        labels = pb.RoundRequest.FromString(request).consensus.payload + pb.Packet.FromString(answer).payload
        beside_labels.append(len(request) + len(answer) - len(labels))
    assert beside_labels[1] <= beside_labels[0] + 3 * 2  # a tag and a byte for each draw that is named


@pytest.mark.parametrize("encoding", ["float32", "float16", "simplex8"])
def test_a_device_that_missed_rounds_knows_the_age_of_each_label_and_goes_on_in_step(encoding: str) -> None:
    server, device = caching(encoding=encoding), LabelCache.empty(40, 3)
    present = {1, 2, 3, 9, 10, 30, 31, 32}
    for round_number in range(1, 33):
        ids = server.ids(round_number)
        if round_number in present:
            task, device = play(server, device, round_number)
            assert np.array_equal(task.predict, ids)
        else:
            server.publish(round_number, ids, rows(len(ids), round_number))


def test_a_device_that_lost_its_disk_gets_every_label_with_its_age() -> None:
    server, device = caching(), LabelCache.empty(40, 3)
    for round_number in range(1, 12):
        _, device = play(server, device, round_number)
    with pytest.raises(StaleCacheError) as caught:
        open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 12))
    server.acknowledged[0] = caught.value.held
    expected = server.cache
    _, served = play(server, LabelCache.empty(40, 3), 12)
    assert np.array_equal(served.changed, expected.changed)
    assert np.array_equal(served.labels, expected.labels)


def _label(cache: LabelCache) -> LabelCache:
    labels = cache.labels.copy()
    labels[3] = labels[3][::-1] + np.float32(1e-3)
    return replace(cache, labels=labels)


def _age(cache: LabelCache) -> LabelCache:
    return replace(cache, changed=np.maximum(cache.changed - 1, 1))


def _forgotten(cache: LabelCache) -> LabelCache:
    return replace(cache, changed=np.zeros_like(cache.changed))


@pytest.mark.parametrize("damage", [_label, _age, _forgotten])
@pytest.mark.parametrize("duration", [0, 4])
def test_a_cache_that_is_not_the_servers_is_refused_and_replaced_by_a_full_packet(
    damage: object, duration: int
) -> None:
    server, device = caching(duration), LabelCache.empty(40, 3)
    for round_number in range(1, 9):
        _, device = play(server, device, round_number)
    assert callable(damage)
    with pytest.raises(StaleCacheError, match="label cache") as caught:
        open_request(CONTEXT, damage(device), server.request(0, 9))
    assert caught.value.held == 0
    server.acknowledged[0] = 0
    expected = server.cache
    task, _ = play(server, LabelCache.empty(40, 3), 9)
    assert task.cache.checksum == expected.checksum


def test_with_a_duration_only_what_was_asked_can_be_published() -> None:
    server = caching()
    others = np.setdiff1d(np.arange(40), server.ids(1))
    with pytest.raises(ValueError, match="round 1 did not ask"):
        server.publish(1, others, rows(len(others)))


@pytest.mark.parametrize("duration", [0, 5])
def test_a_consensus_about_earlier_samples_reaches_all_devices_however_many_rounds_they_missed(duration: int) -> None:
    server, always, seldom = caching(duration), LabelCache.empty(40, 3), LabelCache.empty(40, 3)
    for round_number in range(1, 7):
        before, asked = (
            server.ids(round_number - 1) if round_number > 1 else np.zeros(0, np.int64),
            server.ids(round_number),
        )
        task = open_request(CONTEXT, always, server.request(0, round_number))
        always = task.cache
        labels = soft_labels(task.predict, rows(len(task.predict)))
        server.accept(0, round_number, close_task(CONTEXT, task, labels, "float16"))
        again = np.setdiff1d(before, asked)
        again = again[server.changeable(round_number, again)]
        ids = np.union1d(asked, again)
        server.publish(round_number, ids, rows(len(ids)), again)
        if round_number == 3:
            seldom = open_request(CONTEXT, seldom, server.request(1, 4)).cache
            server.acknowledged[1] = seldom.version
    for device, cache in ((0, always), (1, seldom)):
        task = open_request(CONTEXT, cache, server.request(device, 7))
        assert task.cache.checksum == server.cache.checksum
        assert np.array_equal(task.predict, server.ids(7))


def test_samples_that_a_round_drew_and_did_not_ask_about_can_not_be_changed_in_it() -> None:
    server, device = caching(), LabelCache.empty(40, 3)
    rest = np.zeros(0, dtype=np.int64)
    number = 0
    while not len(rest):
        number += 1
        drawn = draw(CONTEXT.seed, number, 40, 10, independent=True)
        rest = np.setdiff1d(drawn, server.ids(number))
        if not len(rest):
            _, device = play(server, device, number)
    assert not server.changeable(number, rest).any()
    with pytest.raises(ValueError, match="drew and did not ask"):
        server.publish(number, rest, rows(len(rest)), rest)


def test_a_consensus_that_covers_a_part_of_what_was_asked_leaves_the_rest_due() -> None:
    server, device = caching(), LabelCache.empty(40, 3)
    task = open_request(CONTEXT, device, server.request(0, 1))
    server.accept(0, 1, close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16"))
    server.publish(1, task.predict[:4], rows(4))
    caught_up, _ = play(server, task.cache, 2)
    assert np.flatnonzero(caught_up.cache.changed == 2).tolist() == task.predict[:4].tolist()
    drawn = draw(CONTEXT.seed, 2, 40, 10, independent=True)
    assert np.array_equal(caught_up.predict, np.setdiff1d(drawn, task.predict[:4]))


@pytest.mark.parametrize(("ages", "reason"), [([0, 1], "2 ages, 3 expected"), ([0, 1, 2], "older than the version 5")])
def test_ages_that_do_not_fit_the_packet_are_refused(ages: list[int], reason: str) -> None:
    packet = encode(
        CONTEXT,
        soft_labels(np.array([1, 2, 7]), rows(3)),
        round_number=8,
        samples_round=0,
        encoding="float16",
        base_version=5,
        cache_version=7,
        ages=np.array(ages),
    )
    with pytest.raises(PacketError, match=reason):
        check(CONTEXT, packet)


def test_a_draw_that_depends_on_a_cache_is_refused_where_there_is_none() -> None:
    server = caching()
    task = open_request(CONTEXT, LabelCache.empty(40, 3), server.request(0, 1))
    answer = close_task(CONTEXT, task, soft_labels(task.predict, rows(10)), "float16")
    with pytest.raises(PacketError, match="depend on a cache"):
        check(CONTEXT, pb.Packet.FromString(answer))


@given(
    duration=st.integers(0, 9),
    per_round=st.integers(1, 40),
    independent=st.booleans(),
    initial=st.booleans(),
    present=st.lists(st.booleans(), min_size=1, max_size=15),
    covered=st.integers(0, 2**32 - 1),
)
def test_whatever_rounds_a_device_misses_it_derives_what_is_due_and_holds_the_servers_labels(
    duration: int, per_round: int, independent: bool, initial: bool, present: list[bool], covered: int
) -> None:
    server = ServerExchange(CONTEXT, per_round, 20, duration=duration, independent=independent)
    if initial:
        server.publish(0, np.arange(40), rows(40))
    device, rng = LabelCache.empty(40, 3), np.random.default_rng(covered)
    for round_number, there in enumerate(present, start=1):
        ids = server.ids(round_number)
        if there:
            task = open_request(CONTEXT, device, server.request(0, round_number))
            device = task.cache
            assert np.array_equal(task.predict, ids)
            assert np.array_equal(device.labels, server.cache.labels)
            assert np.array_equal(device.changed, server.cache.changed)
            answer = close_task(CONTEXT, task, soft_labels(ids, rows(len(ids), round_number)), "float16")
            assert np.array_equal(server.accept(0, round_number, answer).ids, ids)
        chosen = ids[rng.random(len(ids)) < 0.8]  # the consensus covers a part
        server.publish(round_number, chosen, rows(len(chosen), round_number))


@settings(max_examples=200)
@given(
    duration=st.integers(0, 6),
    independent=st.booleans(),
    fates=st.lists(st.sampled_from(["answers", "lost", "absent"]), min_size=1, max_size=15),
    covered=st.integers(0, 2**32 - 1),
)
def test_a_device_whose_answers_get_lost_goes_on_with_the_next_request(
    duration: int, independent: bool, fates: list[str], covered: int
) -> None:
    server = ServerExchange(CONTEXT, 10, 20, duration=duration, independent=independent)
    server.publish(0, np.arange(40), rows(40))
    device, rng = LabelCache.empty(40, 3), np.random.default_rng(covered)
    for round_number, fate in enumerate(fates, start=1):
        ids = server.ids(round_number)
        if fate != "absent":
            task = open_request(CONTEXT, device, server.request(0, round_number))
            device = task.cache
            assert np.array_equal(task.predict, ids)
            assert device.checksum == server.cache.checksum
            if fate == "answers":
                answer = close_task(CONTEXT, task, soft_labels(ids, rows(len(ids), round_number)), "float16")
                assert np.array_equal(server.accept(0, round_number, answer).ids, ids)
        chosen = ids[rng.random(len(ids)) < 0.8]  # the consensus covers a part
        server.publish(round_number, chosen, rows(len(chosen), round_number))


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


def test_a_device_answers_in_the_encoding_of_its_class() -> None:
    uplinks = {"mcu": "simplex1"}
    server = ServerExchange(CONTEXT, 10, 3, uplink="simplex8", class_uplinks=uplinks, device_classes={1: "mcu"})
    empty = LabelCache.empty(CONTEXT.proxy_size, CONTEXT.classes)
    task = open_request(CONTEXT, empty, server.request(0, 1))
    labels = soft_labels(task.predict, rows(len(task.predict)))
    fine, coarse = (close_task(CONTEXT, task, labels, encoding) for encoding in ("simplex8", "simplex1"))
    server.accept(0, 1, fine)
    server.accept(1, 1, coarse)
    for device, content in ((0, coarse), (1, fine)):
        with pytest.raises(PacketError, match="agreed"):
            server.accept(device, 1, content)
