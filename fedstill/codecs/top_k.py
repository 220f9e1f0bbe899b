"""Top-k: the k largest shares in 255ths, the rest of the mass spread evenly over the other classes.

A row is k classes out of C and k + 1 counts that sum to 255, the last of them the rest: one of binom(C, k) * binom(255
+ k, k), and n samples take n * log2 of that many bits. A kept share is never below those that the rest is spread to.
"""

import numpy as np

from fedstill.codecs import counting, radix
from fedstill.codecs.bits import Coder
from fedstill.codecs.interface import Codes
from fedstill.codecs.shares import code_shares
from fedstill.codecs.simplex import largest_remainder
from fedstill.errors import PacketError
from fedstill.soft_labels import Bools, Floats, Ints

_TOTAL = 255


class TopK:
    """Counts of 255 for each class, zero where not kept, and the rest in a last place.

    Args:
        classes: C, width of a soft label.
        kept: k, less than C.
    """

    kind = np.dtype(np.uint8)

    def __init__(self, classes: int, kept: int) -> None:
        self.width = classes + 1
        self._kept = kept
        self._others = classes - kept
        self._choices = counting.sequences(kept, self._others)
        self._shares = counting.sequences(kept, _TOTAL)

    def quantize(self, rows: Floats) -> Codes:
        """Keep the k largest, the lower class of equal ones, and round them and the rest by largest remainder."""
        chosen = np.sort(np.argsort(-rows, axis=1, kind="stable")[:, : self._kept], axis=1)
        top = np.take_along_axis(rows, chosen, axis=1).astype(np.float64)
        rest = np.maximum(1 - top.sum(axis=1, keepdims=True), 0)
        shares = np.concatenate([top, rest], axis=1)
        counts = largest_remainder(shares / shares.sum(axis=1, keepdims=True), _TOTAL).astype(np.int64)
        lines = np.arange(len(rows))
        while True:  # rounding may leave the least kept share below the even ones by a unit or two
            least = counts[:, :-1].argmin(axis=1)
            short = counts[:, -1] > self._others * counts[lines, least]
            if not short.any():
                break
            counts[lines[short], least[short]] += 1
            counts[short, -1] -= 1
        codes = np.zeros((len(rows), self.width), dtype=self.kind)
        np.put_along_axis(codes, chosen, counts[:, :-1].astype(self.kind), axis=1)
        codes[:, -1] = counts[:, -1]
        return codes

    def restore(self, codes: Codes) -> Floats:
        """Return the kept shares, and the rest's even ones elsewhere."""
        even = codes[:, -1:].astype(np.float64) / self._others
        rows = np.where(self._chosen_mask(codes), codes[:, :-1], even)
        return (rows / _TOTAL).astype(np.float32)

    def check(self, codes: Codes) -> None:
        """Refuse other sums, more than k shares, or shares below those of the rest."""
        if (codes.sum(axis=1, dtype=np.int64) != _TOTAL).any():
            raise PacketError(f"quantized probabilities do not sum to {_TOTAL}")
        if ((codes[:, :-1] > 0).sum(axis=1) > self._kept).any():
            raise PacketError(f"more than {self._kept} classes are kept")
        least = np.where(self._chosen_mask(codes), codes[:, :-1], _TOTAL).min(axis=1)
        if (codes[:, -1] > self._others * least.astype(np.int64)).any():
            raise PacketError("a kept class has less than the others")

    def plain_bytes(self, samples: int) -> int:
        """Return n * log2(binom(C, k) * binom(255 + k, k)) / 8."""
        return radix.packed_bytes(samples, self._choices * self._shares)

    def pack(self, codes: Codes) -> bytes:
        """Write each row as its choice of classes and its counts among all there are."""
        chosen = self._chosen(codes)
        sums = np.cumsum(np.take_along_axis(codes, chosen, axis=1), axis=1, dtype=np.int64)
        choices = counting.ranks(chosen - np.arange(self._kept), self._others)
        shares = counting.ranks(sums, _TOTAL)
        digits = [choice * self._shares + share for choice, share in zip(choices, shares, strict=True)]
        return radix.pack(digits, self._choices * self._shares)

    def unpack(self, payload: bytes, samples: int) -> Codes:
        """Read what `pack` wrote."""
        digits = radix.unpack(payload, samples, self._choices * self._shares)
        chosen = counting.unrank([digit // self._shares for digit in digits], self._kept, self._others)
        sums = counting.unrank([digit % self._shares for digit in digits], self._kept, _TOTAL)
        counts = np.diff(sums, axis=1, prepend=0, append=_TOTAL).astype(self.kind)
        codes = np.zeros((samples, self.width), dtype=self.kind)
        np.put_along_axis(codes, chosen + np.arange(self._kept), counts[:, :-1], axis=1)
        codes[:, -1] = counts[:, -1]
        return codes

    def code(self, coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
        """Code the counts, the rest being one more class."""
        return code_shares(coder, codes, base, known, _TOTAL)

    def _chosen(self, codes: Codes) -> Ints:
        """Return the kept classes, ascending: those with a count, then the lowest without `[samples, k]`."""
        order = np.argsort(codes[:, :-1] == 0, axis=1, kind="stable")
        return np.sort(order[:, : self._kept], axis=1).astype(np.int64)

    def _chosen_mask(self, codes: Codes) -> Bools:
        mask = np.zeros((len(codes), self.width - 1), dtype=np.bool_)
        np.put_along_axis(mask, self._chosen(codes), True, axis=1)
        return mask
