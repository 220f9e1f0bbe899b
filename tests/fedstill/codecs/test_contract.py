"""What every codec promises, whatever it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.codecs import Codec, codec
from fedstill.codecs.bits import Reader, Writer
from fedstill.errors import PacketError

EVERY = ("float32", "float16", "logits16", *(f"simplex{bits}" for bits in range(1, 9)), "top1", "top2", "top3")


@st.composite
def soft_rows(draw: st.DrawFn, classes: int | None = None, least: int = 0) -> np.ndarray:
    """Rows on the simplex, from flat to one-hot, some with equal shares and with zeros."""
    width = draw(st.integers(4, 12)) if classes is None else classes
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    count = draw(st.integers(least, 12))
    rows = rng.dirichlet(np.full(width, draw(st.sampled_from([0.02, 0.2, 1.0, 30.0]))), count)
    for row in range(count):
        kind = draw(st.sampled_from(["as drawn", "one-hot", "flat", "pairs"]))
        if kind == "one-hot":
            rows[row] = np.eye(width)[rng.integers(width)]
        elif kind == "flat":
            rows[row] = 1 / width
        elif kind == "pairs":
            rows[row] = np.repeat(rows[row], 2)[:width] + 1e-9
            rows[row] /= rows[row].sum()
    return rows.astype(np.float32)


def coded(own: Codec, codes: np.ndarray, base: np.ndarray, known: np.ndarray) -> bytes:
    writer = Writer()
    own.code(writer, codes, base, known)
    return writer.content()


def read(own: Codec, content: bytes, base: np.ndarray, known: np.ndarray) -> np.ndarray:
    reader = Reader(content)
    codes = own.code(reader, np.zeros_like(base), base, known)
    reader.finish()
    return codes


@pytest.mark.parametrize("name", EVERY)
class TestEveryCodec:
    @settings(max_examples=40)
    @given(rows=soft_rows())
    def test_plain_bytes_give_back_the_codes_in_the_size_of_the_formula(self, name: str, rows: np.ndarray) -> None:
        own = codec(name, rows.shape[1])
        codes = own.quantize(rows)
        own.check(codes)
        payload = own.pack(codes)
        assert np.array_equal(own.unpack(payload, len(rows)), codes)
        assert max(0, own.plain_bytes(len(rows)) - 1) <= len(payload) <= own.plain_bytes(len(rows))

    @settings(max_examples=40)
    @given(rows=soft_rows())
    def test_decoded_labels_are_on_the_simplex_and_may_be_encoded_again_without_drift(
        self, name: str, rows: np.ndarray
    ) -> None:
        own = codec(name, rows.shape[1])
        decoded = own.restore(own.quantize(rows))
        assert decoded.dtype == np.float32
        assert (decoded >= 0).all()
        assert np.abs(decoded.sum(axis=1) - 1).max(initial=0) < 3e-3
        assert np.array_equal(own.restore(own.quantize(decoded)), decoded)

    @settings(max_examples=40)
    @given(data=st.data())
    def test_coded_bytes_give_back_the_codes_with_and_without_a_base(self, name: str, data: st.DataObject) -> None:
        rows = data.draw(soft_rows(classes=6))
        own = codec(name, 6)
        before = data.draw(soft_rows(classes=6, least=len(rows)).filter(lambda found: len(found) >= len(rows)))
        known = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=np.bool_)
        same = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=np.bool_)
        codes = own.quantize(np.where(same[:, None], before[: len(rows)], rows).astype(np.float32))
        base = own.quantize(before[: len(rows)])
        for said in (known, np.zeros_like(known)):
            assert np.array_equal(read(own, coded(own, codes, base, said), base, said), codes)

    @settings(max_examples=40)
    @given(rows=soft_rows(classes=5, least=1), junk=st.binary(min_size=1, max_size=60))
    def test_plain_bytes_of_another_size_are_refused(self, name: str, rows: np.ndarray, junk: bytes) -> None:
        own = codec(name, 5)
        payload = own.pack(own.quantize(rows))
        for wrong in (payload + junk + b"\1", payload[:-2], b""):
            with pytest.raises(PacketError):
                own.unpack(wrong, len(rows))

    @settings(max_examples=40)
    @given(junk=st.binary(max_size=200), samples=st.integers(0, 12))
    def test_any_bytes_give_valid_labels_or_are_refused(self, name: str, junk: bytes, samples: int) -> None:
        own = codec(name, 5)
        nothing = np.zeros((samples, own.width), dtype=own.kind)
        size = own.plain_bytes(samples)
        for payload in (junk, junk[:size].ljust(size, b"\5"), None):
            try:
                if payload is None:
                    codes = read(own, junk, nothing, np.zeros(samples, dtype=np.bool_))
                else:
                    codes = own.unpack(payload, samples)
                own.check(codes)
            except PacketError:
                continue
            rows = own.restore(codes)
            assert rows.shape == (samples, 5)
            assert np.isfinite(rows).all()
            assert np.abs(rows.sum(axis=1) - 1).max(initial=0) < 3e-3

    def test_labels_that_repeat_themselves_take_less_coded_and_next_to_nothing_against_their_own_base(
        self, name: str
    ) -> None:
        own = codec(name, 10)
        codes = own.quantize(np.random.default_rng(0).dirichlet(np.full(10, 0.05), 20).astype(np.float32))
        codes = np.tile(codes, (20, 1))
        everywhere = np.ones(len(codes), dtype=np.bool_)
        in_full = len(coded(own, codes, codes, ~everywhere))
        assert in_full <= 1.02 * own.plain_bytes(len(codes)) + 4  # already n * log2(C) bits at one bit
        assert len(coded(own, codes, codes, everywhere)) < 12


@pytest.mark.parametrize(("name", "tolerance"), [("float32", 0), ("float16", 5e-4), ("logits16", 1 / 64), ("top11", 1)])
@given(rows=soft_rows(classes=12))
def test_the_error_of_a_share_is_that_of_the_encoding(name: str, tolerance: float, rows: np.ndarray) -> None:
    own = codec(name, 12)
    error = np.abs(own.restore(own.quantize(rows)) - rows).max(initial=0)
    assert error <= (1 / 255 + 1e-6 if name == "top11" else tolerance)


@given(rows=soft_rows(), bits=st.integers(1, 8))
def test_quantized_shares_sum_exactly_and_are_off_by_less_than_a_unit(rows: np.ndarray, bits: int) -> None:
    total = 2**bits - 1
    codes = codec(f"simplex{bits}", rows.shape[1]).quantize(rows)
    assert (codes.sum(axis=1, dtype=np.int64) == total).all()
    assert np.abs(codes - rows * np.float64(total)).max(initial=0) < 1.001


@given(rows=soft_rows())
def test_one_bit_is_the_argmax_the_lower_class_of_equal_ones(rows: np.ndarray) -> None:
    own = codec("simplex1", rows.shape[1])
    assert np.array_equal(own.restore(own.quantize(rows)), np.eye(rows.shape[1], dtype=np.float32)[rows.argmax(axis=1)])
