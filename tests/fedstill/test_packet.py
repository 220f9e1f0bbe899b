import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedstill import packet
from fedstill.codecs import largest_remainder
from fedstill.errors import PacketError
from fedstill.packet import Context, decode, encode
from fedstill.soft_labels import SoftLabels, draw, soft_labels
from protos import soft_labels_pb2 as pb

CONTEXT = Context(seed=7, proxy_digest=hashlib.sha256(b"proxy").digest()[:8], proxy_size=50, classes=4)


def some_labels(round_number: int = 3, count: int = 10) -> SoftLabels:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(CONTEXT.classes), count).astype(np.float32)
    return soft_labels(draw(CONTEXT.seed, round_number, CONTEXT.proxy_size, count), rows)


def packed(labels: SoftLabels | None = None, encoding: str = "float16", round_number: int = 3) -> pb.Packet:
    chosen = some_labels() if labels is None else labels
    return encode(CONTEXT, chosen, round_number=round_number, samples_round=round_number, encoding=encoding)


def rechecked(message: pb.Packet) -> bytes:
    """Return a tampered message with a checksum that holds, so that another rule has to refuse it."""
    message.checksum = packet._checksum(message)
    return message.SerializeToString()


@pytest.mark.parametrize(("encoding", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("simplex8", 1 / 255)])
def test_decoding_returns_what_was_encoded_within_the_encodings_precision(encoding: str, tolerance: float) -> None:
    labels = some_labels()
    decoded = decode(CONTEXT, packed(labels, encoding).SerializeToString(), round_number=3, ids=labels.ids)
    assert np.array_equal(decoded.labels.ids, labels.ids)
    assert np.abs(decoded.labels.probabilities - labels.probabilities).max() <= tolerance


@given(
    shares=hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(2, 12)), elements=st.floats(1e-6, 1)),
)
def test_largest_remainder_sums_exactly_and_stays_within_one_unit(shares: np.ndarray) -> None:
    rows = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    rounded = largest_remainder(rows, 255)
    assert (rounded.sum(axis=1, dtype=np.int64) == 255).all()
    assert np.abs(rounded - rows * 255.0).max() <= 1.001


@given(present=hnp.arrays(np.bool_, 10), seed=st.integers(0, 1000))
def test_abstentions_certainty_and_prior_survive_the_wire(present: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(4), 10).astype(np.float32)
    certainty = rng.random(10).astype(np.float32)
    prior = rng.dirichlet(np.ones(4)).astype(np.float32)
    ids = draw(CONTEXT.seed, 3, CONTEXT.proxy_size, 10)
    labels = soft_labels(ids, rows, present=present, certainty=certainty, class_prior=prior)
    got = decode(CONTEXT, packed(labels).SerializeToString(), round_number=3, ids=ids).labels
    assert np.array_equal(got.present, present)
    assert (got.probabilities[~present] == 0).all()
    assert got.class_prior is not None
    assert np.abs(got.class_prior - prior).max() <= 1 / 255 + 1e-6
    if present.any():
        assert got.certainty is not None
        assert np.abs(got.certainty - certainty)[present].max() <= 0.5 / 255 + 1e-6


def test_a_rounds_draw_travels_as_a_seed_and_other_samples_as_a_bitmap() -> None:
    drawn = packed()
    assert drawn.samples.WhichOneof("form") == "draw"
    others = soft_labels(np.array([1, 4, 49]), some_labels(count=3).probabilities)
    assert packed(others).samples.WhichOneof("form") == "bitmap"
    decoded = decode(CONTEXT, packed(others).SerializeToString())
    assert decoded.labels.ids.tolist() == [1, 4, 49]


def test_a_flipped_byte_anywhere_is_refused_or_changes_nothing() -> None:
    content = packed().SerializeToString(deterministic=True)
    original = decode(CONTEXT, content).labels.probabilities
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        try:
            decoded = decode(CONTEXT, bytes(damaged))
        except PacketError:
            continue
        assert np.array_equal(decoded.labels.probabilities, original)


@given(content=st.binary(max_size=400))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(PacketError):
        decode(CONTEXT, content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "contract version"),
        ({"run": 8}, "another run"),
        ({"round": 4}, "round 4"),
        ({"proxy_digest": b"otherset"}, "another proxy set"),
        ({"proxy_size": 51}, "another proxy set"),
        ({"classes": 5}, "5 classes"),
        ({"encoding": 9}, "unknown encoding"),
        ({"payload": b"\0" * 80}, "sum to one"),
        ({"payload": b"\0" * 78}, "78 bytes"),
        ({"payload": np.full((10, 4), np.nan, "<f2").tobytes()}, "not finite"),
        ({"payload": np.full((10, 4), np.inf, "<f2").tobytes()}, "not finite"),
        ({"payload": np.tile(np.array([-1, 1, 1, 0], "<f2"), 10).tobytes()}, "negative"),
        ({"abstained": b"\0"}, "abstention bitmap"),
        ({"abstained": b"\0\xff"}, "beyond the last"),
        ({"certainty": b"\1\2"}, "certainty"),
        ({"class_prior": b"\1\2\3\4"}, "class prior"),
    ],
)
def test_a_packet_that_breaks_a_rule_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    message = packed()
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(PacketError, match=reason):
        decode(CONTEXT, rechecked(message), round_number=3)


def test_a_packet_about_other_samples_than_asked_for_is_refused() -> None:
    with pytest.raises(PacketError, match="other samples"):
        decode(CONTEXT, packed().SerializeToString(), ids=draw(CONTEXT.seed, 4, CONTEXT.proxy_size, 10))


def test_an_impossible_draw_is_refused_without_allocating_for_it() -> None:
    message = packed()
    message.samples.draw.count = 2**31
    with pytest.raises(PacketError, match="impossible draw"):
        decode(CONTEXT, rechecked(message))


def test_a_packet_over_the_size_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(PacketError, match="over the limit"):
        decode(CONTEXT, b"\0" * (CONTEXT.max_bytes + 1))


def test_a_quantized_packet_whose_integers_do_not_sum_is_refused() -> None:
    message = packed(encoding="simplex8")
    message.payload = bytes(len(message.payload))
    with pytest.raises(PacketError, match="sum to 255"):
        decode(CONTEXT, rechecked(message))


def test_the_payload_has_the_size_of_its_formula() -> None:
    assert len(packed(encoding="float32").payload) == 10 * 4 * 4
    assert len(packed(encoding="float16").payload) == 10 * 4 * 2
    assert len(packed(encoding="simplex8").payload) == 10 * 4


def test_joined_draws_are_named_by_their_rounds_and_come_back_whole_with_their_ages() -> None:
    named = pb.Samples.Draw(seed=CONTEXT.seed, round=2, count=10, rounds=3)
    ids, since = packet.joined_draws(CONTEXT, named)
    assert np.array_equal(packet.decode_samples(CONTEXT, pb.Samples(draw=named)), ids)
    for ago, number in enumerate((4, 3, 2)):
        drawn = draw(CONTEXT.seed, number, CONTEXT.proxy_size, 10)
        later = [draw(CONTEXT.seed, after, CONTEXT.proxy_size, 10) for after in range(number + 1, 5)]
        newest = np.setdiff1d(drawn, np.concatenate(later)) if later else drawn
        assert np.array_equal(ids[since == ago], newest)


@pytest.mark.parametrize(("count", "rounds"), [(10, 6), (50, 2), (1, 2**32 - 1)])
def test_more_joined_draws_than_the_proxy_set_holds_are_refused(count: int, rounds: int) -> None:
    samples = pb.Samples(draw=pb.Samples.Draw(seed=CONTEXT.seed, round=1, count=count, rounds=rounds))
    with pytest.raises(PacketError, match="joined draws exceed"):
        packet.decode_samples(CONTEXT, samples)


def test_an_encoding_that_was_not_agreed_is_refused_before_its_labels_are_decoded() -> None:
    labels = some_labels()
    content = packed(labels, "float32").SerializeToString()
    with pytest.raises(PacketError, match="encoding float32, simplex8 agreed"):
        decode(CONTEXT, content, ids=labels.ids, agreed=packet.Agreed("simplex8", entropy_coded=True))
    message = packed(labels, "simplex8")
    message.entropy_coded = True
    with pytest.raises(PacketError, match="not agreed"):
        decode(CONTEXT, rechecked(message), ids=labels.ids, agreed=packet.Agreed("simplex8", entropy_coded=False))


def test_a_packet_with_more_than_its_fields_is_refused() -> None:
    content = packed().SerializeToString()
    unknown = b"\xfa\x7f\x05extra"  # field 2047
    for tampered in (content + unknown, content + content):
        with pytest.raises(PacketError, match="one form"):
            decode(CONTEXT, tampered)


def test_an_answer_that_tells_ages_is_refused() -> None:
    labels, message = some_labels(), packed()
    message.ages.extend([0] * len(labels.ids))
    with pytest.raises(PacketError, match="no ages"):
        decode(CONTEXT, rechecked(message), ids=labels.ids)
