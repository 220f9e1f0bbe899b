"""What single codecs promise beyond the contract of all."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.codecs import codec, counting, is_codec, radix
from fedstill.codecs.bits import Reader, Writer, number
from fedstill.errors import ConfigError, PacketError


def rows(samples: int, classes: int = 10, concentration: float = 0.3) -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.full(classes, concentration), samples).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("samples", [1, 7, 800, 2000])
def test_one_bit_labels_take_log2_of_the_classes_bits_to_within_a_byte(samples: int, classes: int) -> None:
    payload = codec("simplex1", classes).pack(codec("simplex1", classes).quantize(rows(samples, classes)))
    assert abs(len(payload) - math.ceil(samples * math.log2(classes) / 8)) <= 1


@pytest.mark.parametrize("bits", range(1, 8))
def test_b_bit_labels_take_log2_of_the_rows_that_there_are(bits: int) -> None:
    own = codec(f"simplex{bits}", 10)
    there_are = math.comb(10 + 2**bits - 2, 9)
    assert abs(len(own.pack(own.quantize(rows(500)))) - 500 * math.log2(there_are) / 8) <= 1.2


def test_rows_whose_places_exceed_64_bits_are_packed_as_well() -> None:
    own = codec("simplex7", 100)
    codes = own.quantize(rows(20, classes=100))
    assert np.array_equal(own.unpack(own.pack(codes), 20), codes)


@given(digits=st.lists(st.integers(0, 9), max_size=50), place=st.integers(0, 49), change=st.integers(1, 255))
def test_no_other_bytes_say_the_same_digits(digits: list[int], place: int, change: int) -> None:
    content = bytearray(radix.pack(digits, 10))
    if not content:
        return
    content[place % len(content)] ^= change
    with contextlib.suppress(PacketError):
        assert radix.unpack(bytes(content), len(digits), 10) != digits


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_every_sequence_has_a_place_of_its_own(steps: list[int]) -> None:
    row = np.sort(np.array([steps]))
    places = counting.ranks(row, 6)
    assert 0 <= places[0] < counting.sequences(len(steps), 6)
    assert np.array_equal(counting.unrank(places, len(steps), 6), row)


def test_all_sequences_together_fill_all_places() -> None:
    everything = counting.unrank(list(range(counting.sequences(3, 4))), 3, 4)
    assert len(np.unique(everything, axis=0)) == math.comb(7, 3)
    assert (np.diff(everything, axis=1) >= 0).all()


def test_a_number_over_its_limit_is_refused() -> None:
    writer = Writer()
    number(writer, "n", 7, limit=7)
    with pytest.raises(PacketError, match="more than there is left"):
        number(Reader(writer.content()), "n", 0, limit=5)


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        ([1.0, 1.0, 1.0], "centred"),
        ([9.0, -9.0, 0.0], "apart"),
        ([17.0, -17.0, 0.0], "too large"),
        ([np.nan, 0.0, 0.0], "not finite"),
        ([np.inf, -np.inf, 0.0], "not finite"),
        ([0.001, -0.001, 0.0], "multiples"),
    ],
)
def test_logits_that_were_not_made_here_are_refused(logits: list[float], reason: str) -> None:
    own = codec("logits16", 3)
    with pytest.raises(PacketError, match=reason):
        own.check(own.unpack(np.array(logits, dtype="<f2").tobytes(), 1))


def test_logits_keep_the_small_shares_that_eight_bits_round_away() -> None:
    row = np.array([[0.998, 1.5e-3, 4e-4, 1e-4]], dtype=np.float32)
    decoded = codec("logits16", 4).restore(codec("logits16", 4).quantize(row))
    assert np.abs(np.log(decoded / row)).max() < 1 / 32


def test_top_k_keeps_the_largest_and_spreads_the_rest_evenly() -> None:
    own = codec("top2", 5)
    decoded = own.restore(own.quantize(np.array([[0.1, 0.5, 0.04, 0.3, 0.06]], dtype=np.float32)))
    assert np.abs(decoded[0, [1, 3]] - [0.5, 0.3]).max() < 1 / 255
    assert np.ptp(decoded[0, [0, 2, 4]]) == 0
    assert abs(decoded.sum() - 1) < 1e-6


@pytest.mark.parametrize("codes", [[100, 0, 0, 0, 155], [60, 60, 60, 0, 75], [100, 100, 0, 0, 50]])
def test_top_k_counts_that_no_encoder_makes_are_refused(codes: list[int]) -> None:
    with pytest.raises(PacketError):
        codec("top2", 4).check(np.array([codes], dtype=np.uint8))


@pytest.mark.parametrize("name", ["simplex0", "simplex9", "top0", "top", "top100", "float64", "", "simplex11"])
def test_other_names_are_no_encodings(name: str) -> None:
    assert not is_codec(name)
    with pytest.raises(ConfigError, match="there are float32"):
        codec(name, 10)


def test_top_k_of_all_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs more classes"):
        codec("top10", 10)
