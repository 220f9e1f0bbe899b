"""Hostile bytes: whatever arrives, a decoder returns valid labels or refuses with a `PacketError`, in bounded space.

Mutated fields get a checksum that holds, so that the rules behind it are reached. tests/fuzz does the same guided by
coverage, for as long as one likes.
"""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.errors import PacketError
from fedstill.exchange import ServerExchange, open_request
from fedstill.packet import Context, decode, encode
from fedstill.soft_labels import SoftLabels, soft_labels
from protos import soft_labels_pb2 as pb

CONTEXT = Context(seed=4, proxy_digest=b"12345678", proxy_size=60, classes=5)
FORMS = [
    (name, coded, delta)
    for name in ("float32", "float16", "logits16", "simplex1", "simplex4", "simplex8", "top2")
    for coded, delta in ((False, False), (True, False), (True, True))
]
BYTES_FIELDS = ("proxy_digest", "payload", "abstained", "certainty", "class_prior")
NUMBER_FIELDS = (
    "version",
    "run",
    "round",
    "proxy_size",
    "classes",
    "base_version",
    "cache_version",
    "parameter",
    "base_checksum",
)


def labels(seed: int) -> SoftLabels:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(5, 0.1), 60).astype(np.float32)
    prior = rng.dirichlet(np.ones(5)).astype(np.float32)
    return soft_labels(
        np.arange(60),
        rows,
        present=rng.random(60) > 0.2,
        certainty=rng.random(60).astype(np.float32),
        class_prior=prior,
    )


def base_of(name: str) -> Base:
    return Base.nothing(name, 60, 5).extended(labels(0), 2)


def honest(name: str, coded: bool, delta: bool) -> pb.Packet:
    said = labels(0) if delta else labels(1)  # unchanged labels: a delta is then the smallest form
    return encode(
        CONTEXT,
        said,
        round_number=3,
        samples_round=3,
        encoding=name,
        entropy_coded=coded,
        base=base_of(name) if delta else None,
    )


HONEST = {form: honest(*form) for form in FORMS}


def request_of(name: str, coded: bool, delta: bool) -> tuple[pb.RoundRequest, LabelCache]:
    """Return an honest request, and the cache of the device that it is for."""
    exchange = ServerExchange(CONTEXT, 20, 9, name, entropy_coded=coded, delta=delta)
    rows = np.random.default_rng(0).dirichlet(np.full(5, 0.1), 60).astype(np.float32)
    exchange.publish(0, np.arange(60), rows)
    held = exchange.cache if delta else LabelCache.empty(60, 5)
    exchange.acknowledged[0] = held.version
    exchange.publish(1, np.arange(60), rows)
    return pb.RoundRequest.FromString(exchange.request(0, 2)), held


REQUESTS = [request_of(*form) for form in FORMS]


def check_valid(found: SoftLabels) -> None:
    rows = found.probabilities[found.present]
    assert found.probabilities.shape == (len(found.ids), 5)
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max(initial=0) < 3e-3
    assert (np.diff(found.ids) > 0).all()
    assert not len(found.ids) or 0 <= found.ids[0] <= found.ids[-1] < 60


def try_decode(content: bytes, name: str) -> None:
    try:
        check_valid(decode(CONTEXT, content, round_number=3, base=base_of(name)).labels)
    except PacketError:
        return


def try_request(content: bytes, held: LabelCache) -> None:
    try:
        task = open_request(CONTEXT, held, content)
    except PacketError:
        return
    check_valid(soft_labels(task.cache.known, task.cache.labels[task.cache.known]))
    assert len(task.predict) <= 60


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Flip, cut, extend, repeat or replace a part."""
    kind = draw(st.sampled_from(["flip", "cut", "extend", "repeat", "replace"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    size = draw(st.integers(0, 12))
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(1 + size // 4):
            if changed:
                changed[draw(st.integers(0, len(changed) - 1))] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if kind == "cut":
        return content[:place] + content[place + size :]
    if kind == "extend":
        return content + draw(st.binary(max_size=40))
    if kind == "repeat":
        return content[: place + size] + content[place:]
    return content[:place] + draw(st.binary(max_size=40)) + content[place + size :]


@st.composite
def mutated_packet(draw: st.DrawFn, original: pb.Packet) -> pb.Packet:
    """Change one to three fields and let the checksum hold again."""
    message = pb.Packet()
    message.CopyFrom(original)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["bytes", "bytes", "number", "encoding", "coded", "samples"]))
        if kind == "bytes":
            field = draw(st.sampled_from(BYTES_FIELDS))
            setattr(message, field, draw(mutated_bytes(getattr(message, field))))
        elif kind == "number":
            setattr(message, draw(st.sampled_from(NUMBER_FIELDS)), draw(st.integers(0, 7) | st.integers(0, 2**32 - 1)))
        elif kind == "encoding":
            message.encoding = draw(st.integers(0, 8))  # type: ignore[assignment]
            message.parameter = draw(st.integers(0, 9) | st.integers(0, 2**32 - 1))
        elif kind == "coded":
            message.entropy_coded = not message.entropy_coded
        elif draw(st.booleans()):
            count, round_number = draw(st.integers(0, 61)), draw(st.integers(0, 2**32 - 1))
            message.samples.draw.CopyFrom(pb.Samples.Draw(seed=4, round=round_number, count=count))
        else:
            message.samples.bitmap = draw(st.binary(min_size=7, max_size=9))
    message.checksum = packet._checksum(message)
    return message


def test_the_honest_packets_are_of_the_forms_that_they_claim_to_be_and_are_accepted() -> None:
    for (name, _, delta), message in HONEST.items():
        assert message.HasField("base_checksum") == delta
        assert message.entropy_coded or not delta
        check_valid(decode(CONTEXT, message.SerializeToString(), round_number=3, base=base_of(name)).labels)
    assert sum(message.entropy_coded for message in HONEST.values()) > len(FORMS) / 3
    assert all(request.consensus.HasField("base_checksum") == (held.version > 0) for request, held in REQUESTS)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_damaged_packets_are_refused_or_valid(data: st.DataObject, form: tuple[str, bool, bool]) -> None:
    try_decode(data.draw(mutated_bytes(HONEST[form].SerializeToString(deterministic=True))), form[0])


@settings(max_examples=250, deadline=None)
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_forged_fields_under_a_checksum_that_holds_are_refused_or_valid(
    data: st.DataObject, form: tuple[str, bool, bool]
) -> None:
    try_decode(data.draw(mutated_packet(HONEST[form])).SerializeToString(), form[0])


@settings(max_examples=120, deadline=None)
@given(data=st.data(), place=st.integers(0, len(FORMS) - 1))
def test_forged_requests_are_refused_or_valid(data: st.DataObject, place: int) -> None:
    request, held = REQUESTS[place]
    message = pb.RoundRequest()
    message.CopyFrom(request)
    message.consensus.CopyFrom(data.draw(mutated_packet(message.consensus)))
    if data.draw(st.booleans()):
        for field in ("version", "run", "round", "rounds", "acknowledged"):
            if data.draw(st.booleans()):
                setattr(message, field, data.draw(st.integers(0, 2**32 - 1)))
    content = message.SerializeToString()
    try_request(data.draw(st.just(content) | mutated_bytes(content)), held)


@given(content=st.binary(max_size=300))
@example(content=b"")
def test_random_bytes_are_no_request(content: bytes) -> None:
    try_request(content, LabelCache.empty(60, 5))


def _peak(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [form for form in FORMS if form[1]])
@pytest.mark.parametrize("filler", [0x00, 0x01, 0x7F, 0xFF])
def test_a_coded_payload_of_few_bytes_can_not_make_the_decoder_allocate_without_bound(
    form: tuple[str, bool, bool], filler: int
) -> None:
    message = pb.Packet()
    message.CopyFrom(HONEST[form])
    message.entropy_coded = True
    for size in (1, 3, 8):
        message.payload = bytes([filler]) * size
        message.checksum = packet._checksum(message)
        content = message.SerializeToString()
        assert _peak(lambda content=content: try_decode(content, form[0])) < 4_000_000  # type: ignore[misc]
