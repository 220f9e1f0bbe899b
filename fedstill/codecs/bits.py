"""Adaptive binary coding: each yes or no costs what its context has made likely so far.

Binary arithmetic coding with adaptive contexts, as CFD uses it for its soft labels (Sattler, Marban, Rischke and Samek
2022, arXiv 2012.00632; contexts as in Marpe, Schwarz and Wiegand 2003), here with counts instead of a state table and
rANS (`fedstill.codecs.ans`) instead of an arithmetic coder. Writer and reader run the same code over `Coder`: the
writer is given the values, the reader returns them. Nothing is read that was not asked for, so the output is bounded by
the reader's own loops, whatever the input.
"""

from collections.abc import Hashable
from typing import Protocol

from fedstill.codecs import ans
from fedstill.errors import PacketError

_TOTAL = 1 << 16
_LEAST = 32  # no bit is ever taken for certain
_MEMORY = 255  # halve a context's counts there, so that it follows what changes


class _Contexts:
    """How often each context saw a zero and a one; Krichevsky and Trofimov's half is counted in advance."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, list[int]] = {}

    def zero_share(self, context: Hashable) -> tuple[list[int], int]:
        """Return a context's counts, in halves, and the slots of `_TOTAL` that a zero owns."""
        counts = self._counts.get(context)
        if counts is None:
            counts = self._counts[context] = [1, 1]
        share = (counts[0] * _TOTAL) // (counts[0] + counts[1])
        return counts, min(max(share, _LEAST), _TOTAL - _LEAST)

    @staticmethod
    def learn(counts: list[int], bit: int) -> None:
        """Count a bit."""
        counts[bit] += 2
        if counts[bit] > 2 * _MEMORY:
            counts[0] = (counts[0] + 1) // 2
            counts[1] = (counts[1] + 1) // 2


class Coder(Protocol):
    """Writes bits, or reads them; contexts are any hashable names."""

    def bit(self, context: Hashable, value: int) -> int:
        """Write `value` and return it, or ignore it and return the bit that was written there."""


class Writer:
    """Gathers bits and makes bytes of them."""

    def __init__(self) -> None:
        self._contexts = _Contexts()
        self._intervals: list[tuple[int, int]] = []

    def bit(self, context: Hashable, value: int) -> int:
        """Write a bit."""
        counts, zero = self._contexts.zero_share(context)
        self._intervals.append((zero, _TOTAL - zero) if value else (0, zero))
        self._contexts.learn(counts, value)
        return value

    def content(self) -> bytes:
        """Return all bits as bytes."""
        return ans.encode(self._intervals, _TOTAL)


class Reader:
    """Reads the bits of untrusted bytes."""

    def __init__(self, content: bytes) -> None:
        self._contexts = _Contexts()
        self._decoder = ans.Decoder(content, _TOTAL)

    def bit(self, context: Hashable, value: int) -> int:
        """Return the next bit; `value` is ignored."""
        counts, zero = self._contexts.zero_share(context)
        found = int(self._decoder.slot() >= zero)
        self._decoder.advance(*((zero, _TOTAL - zero) if found else (0, zero)))
        self._contexts.learn(counts, found)
        return found

    def finish(self) -> None:
        """Refuse a payload that goes on, or that was too short.

        Raises:
            PacketError: it does not end here.
        """
        self._decoder.finish()


def tree(coder: Coder, context: Hashable, value: int, width: int) -> int:
    """Code a number of `width` bits, highest first, each bit in the context of those above it."""
    node = 1
    for place in range(width - 1, -1, -1):
        node = node << 1 | coder.bit((context, node), value >> place & 1)
    return node - (1 << width)


def number(coder: Coder, context: Hashable, value: int, limit: int) -> int:
    """Code a number in [0, limit]: its bit length in unary, then its bits (Exp-Golomb with contexts).

    Raises:
        PacketError: what is read exceeds `limit`.
    """
    length, longest, wanted = 0, limit.bit_length(), value.bit_length()
    while length < longest and coder.bit((context, length), int(wanted > length)):
        length += 1
    found = min(length, 1)
    for place in range(length - 2, -1, -1):
        inner = (context, length, found) if length - place <= 3 else (context, length, -place)
        found = found << 1 | coder.bit(inner, value >> place & 1)
    if found > limit:
        raise PacketError("coded payload names more than there is left to share")
    return found
