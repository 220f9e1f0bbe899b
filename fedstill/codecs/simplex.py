"""Simplex quantization at b bits: counts that sum to 2^b - 1 exactly.

CFD (Sattler, Marban, Rischke and Samek 2022, arXiv 2012.00632), whose b-bit labels stay on the simplex; rounding is by
largest remainder, ties to the lower class. b = 1 is the argmax. A row of C counts is one of binom(C + 2^b - 2, C - 1),
so n samples take n * log2 of that many bits, n * log2(C) at b = 1; at 8 bits plain bytes travel, one a class.
"""

from typing import Any

import numpy as np

from fedstill.codecs import counting, radix
from fedstill.codecs.bits import Coder
from fedstill.codecs.interface import Codes
from fedstill.codecs.shares import code_shares
from fedstill.errors import PacketError
from fedstill.soft_labels import Bools, Floats


def largest_remainder(shares: Floats, total: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Round rows of shares on the simplex to integers that sum to `total` exactly (largest remainder, stable ties).

    Args:
        shares: rows that sum to one `[..., classes]`.
        total: the sum to reach, at most 255.
    """
    scaled = shares.astype(np.float64) * total
    floor = np.floor(scaled)
    missing = (total - floor.sum(axis=-1, keepdims=True)).astype(np.int64)
    order = np.argsort(-(scaled - floor), axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(shares.shape[-1]), order.shape), axis=-1)
    result: np.ndarray[Any, np.dtype[np.uint8]] = (floor + (ranks < missing)).astype(np.uint8)
    return result


class Simplex:
    """Counts of 2^b - 1.

    Args:
        classes: C, width of a soft label.
        bits: b, 1 to 8.
    """

    kind = np.dtype(np.uint8)

    def __init__(self, classes: int, bits: int) -> None:
        self.width = classes
        self._total = 2**bits - 1
        self._radix = counting.sequences(classes - 1, self._total)

    def quantize(self, rows: Floats) -> Codes:
        """Round to the largest remainder; at one bit that is the largest share, the first of equal ones."""
        return largest_remainder(rows, self._total)

    def restore(self, codes: Codes) -> Floats:
        """Return counts as shares."""
        return (codes / np.float32(self._total)).astype(np.float32)

    def check(self, codes: Codes) -> None:
        """Refuse counts with another sum."""
        if (codes.sum(axis=1, dtype=np.int64) != self._total).any():
            raise PacketError(f"quantized probabilities do not sum to {self._total}")

    def plain_bytes(self, samples: int) -> int:
        """Return n * C at 8 bits, else n * log2(binom(C + 2^b - 2, C - 1)) / 8."""
        return samples * self.width if self._total == 255 else radix.packed_bytes(samples, self._radix)

    def pack(self, codes: Codes) -> bytes:
        """Write bytes at 8 bits, else each row's place among all rows of that sum."""
        if self._total == 255:
            return codes.tobytes()
        sums = np.cumsum(codes[:, :-1], axis=1, dtype=np.int64)
        return radix.pack(counting.ranks(sums, self._total), self._radix)

    def unpack(self, payload: bytes, samples: int) -> Codes:
        """Read what `pack` wrote."""
        if self._total == 255:
            if len(payload) != samples * self.width:
                raise PacketError(f"payload has {len(payload)} bytes, {samples * self.width} expected")
            return np.frombuffer(payload, dtype=np.uint8).reshape(samples, self.width)
        places = radix.unpack(payload, samples, self._radix)
        sums = counting.unrank(places, self.width - 1, self._total)
        return np.diff(sums, axis=1, prepend=0, append=self._total).astype(np.uint8)

    def code(self, coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
        """Code the counts as shares of their total."""
        return code_shares(coder, codes, base, known, self._total)
