import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fedstill import packet
from fedstill.delta import Base
from fedstill.errors import PacketError, StaleBaseError
from fedstill.packet import Context, decode, encode
from fedstill.soft_labels import SoftLabels, draw, soft_labels
from fedstill.stored import load_base, store_base

CONTEXT = Context(seed=3, proxy_digest=b"12345678", proxy_size=40, classes=6)
ENCODINGS = ("float32", "float16", "logits16", "simplex1", "simplex4", "simplex8", "top2")


def labels(round_number: int, seed: int, count: int = 20, present: np.ndarray | None = None) -> SoftLabels:
    rows = np.random.default_rng(seed).dirichlet(np.full(6, 0.1), count).astype(np.float32)
    return soft_labels(draw(CONTEXT.seed, round_number, CONTEXT.proxy_size, count), rows, present=present)


def packed(said: SoftLabels, encoding: str, base: Base | None = None) -> bytes:
    packet = encode(
        CONTEXT, said, round_number=3, samples_round=3, encoding=encoding, entropy_coded=base is not None, base=base
    )
    return packet.SerializeToString(deterministic=True)


def base_of(encoding: str, *earlier: SoftLabels, version: int = 2) -> Base:
    base = Base.nothing(encoding, CONTEXT.proxy_size, CONTEXT.classes)
    for said in earlier:
        base = base.extended(said, version)
    return base


def hardly_changed(now: SoftLabels, before: SoftLabels) -> SoftLabels:
    """Return labels of which all but every fourth are those of `before`, which is about the whole proxy set."""
    keep = np.arange(len(now.ids)) % 4 > 0
    keep &= before.present[now.ids]
    rows = np.where(keep[:, None], before.probabilities[now.ids], now.probabilities)
    return soft_labels(now.ids, rows, present=now.present)


@settings(max_examples=30, deadline=None)
@given(encoding=st.sampled_from(ENCODINGS), data=st.data())
def test_a_delta_decodes_to_exactly_what_a_full_packet_of_the_codec_does(encoding: str, data: st.DataObject) -> None:
    present = np.array(data.draw(st.lists(st.booleans(), min_size=20, max_size=20)), dtype=np.bool_)
    said_before = np.array(data.draw(st.lists(st.booleans(), min_size=40, max_size=40)), dtype=np.bool_)
    before = labels(1, data.draw(st.integers(0, 99)), count=40, present=said_before)
    now = hardly_changed(labels(3, data.draw(st.integers(0, 99)), present=present), before)
    base = base_of(encoding, before)
    full = decode(CONTEXT, packed(now, encoding))
    delta = decode(CONTEXT, packed(now, encoding, base), base=base)
    assert not full.is_delta
    event("a delta" if delta.is_delta else "smaller in full")
    assert np.array_equal(delta.labels.probabilities, full.labels.probabilities)
    assert np.array_equal(delta.labels.present, full.labels.present)


@given(encoding=st.sampled_from((*ENCODINGS, "top5")), seed=st.integers(0, 999))
def test_sender_and_receiver_extend_their_bases_to_equal_ones(encoding: str, seed: int) -> None:
    own = labels(3, seed)
    received = decode(CONTEXT, packed(own, encoding)).labels
    ours, theirs = base_of(encoding, own), base_of(encoding, received)
    assert np.array_equal(ours.codes, theirs.codes)
    assert ours.checksum(np.arange(40)) == theirs.checksum(np.arange(40))


def test_labels_that_hardly_change_take_a_fraction_of_their_bytes() -> None:
    rows = np.random.default_rng(0).dirichlet(np.full(6, 0.3), 40).astype(np.float32)
    everything = np.arange(40)
    base = base_of("simplex8", soft_labels(everything, rows))
    rows[:2] = rows[2:4]
    now = soft_labels(everything, rows)
    assert len(packed(now, "simplex8", base)) < len(packed(now, "simplex8")) / 3


def test_labels_that_have_nothing_to_do_with_the_base_travel_in_full_and_still_extend_it() -> None:
    base = base_of("simplex4", labels(1, 0, count=40))
    decoded = decode(CONTEXT, packed(labels(3, 5), "simplex4", base))
    assert not decoded.is_delta
    assert decoded.base_version == base.version


def test_abstaining_leaves_what_was_said_before() -> None:
    base = base_of("simplex4", labels(1, 0, count=40))
    silent = labels(3, 1, present=np.zeros(20, dtype=np.bool_))
    assert np.array_equal(base.extended(silent, 3).codes, base.codes)


@pytest.mark.parametrize(
    "held",
    [
        None,
        base_of("simplex4", labels(1, 0, count=40), version=1),
        base_of("simplex8", labels(1, 0, count=40)),
        base_of("simplex4", labels(1, 9, count=40)),
        base_of("simplex4", labels(3, 0)),
    ],
    ids=["nothing", "another version", "another encoding", "other labels", "fewer labels"],
)
def test_a_delta_to_what_is_not_held_is_refused(held: Base | None) -> None:
    before = labels(1, 0, count=40)
    content = packed(hardly_changed(labels(3, 5), before), "simplex4", base_of("simplex4", before))
    with pytest.raises(StaleBaseError):
        decode(CONTEXT, content, base=held)


def test_a_full_packet_is_read_without_regard_to_the_base() -> None:
    now = labels(3, 5)
    base = base_of("simplex4", labels(1, 0, count=40))
    decoded = decode(CONTEXT, packed(now, "simplex4"), base=base)
    assert np.array_equal(decoded.labels.probabilities, decode(CONTEXT, packed(now, "simplex4")).labels.probabilities)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stored_base_comes_back_as_it_was(encoding: str) -> None:
    base = base_of(encoding, labels(1, 0))
    loaded = load_base(store_base(base), CONTEXT.classes)
    assert loaded.version == base.version
    assert loaded.encoding == encoding
    assert loaded.codes.dtype == base.codes.dtype
    assert np.array_equal(loaded.codes, base.codes)
    assert np.array_equal(loaded.known, base.known)


def test_a_coded_payload_that_is_no_smaller_than_a_plain_one_is_refused() -> None:
    message = encode(
        CONTEXT, labels(3, 5), round_number=3, samples_round=3, encoding="simplex1", entropy_coded=True
    )  # twenty flat argmaxes are smaller plain
    assert not message.entropy_coded
    message.entropy_coded = True
    message.checksum = packet._checksum(message)
    with pytest.raises(PacketError, match="no smaller"):
        decode(CONTEXT, message.SerializeToString())
