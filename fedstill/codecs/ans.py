"""Asymmetric numeral systems: a sequence of symbols as one number, in bytes.

Duda 2013, arXiv 1311.2540 (range variant, rANS), integers only, so that any two machines agree. A symbol s owns the
slots [start_s, start_s + freq_s) of `total`; coding it turns the state x into (x // freq_s) * total + start_s + x %
freq_s, which costs log2(total / freq_s) bits. The coder works as a stack, so encoding walks backwards. The state starts
at one and a decoder has to end there: a payload has one reading, and no second payload has the same.
"""

from collections.abc import Sequence

from fedstill.errors import PacketError

_SPARE = 24  # bits of the state below which nothing is written out: rounding costs 2^-24 of a symbol


def encode(intervals: Sequence[tuple[int, int]], total: int) -> bytes:
    """Return the bytes of symbols, each given as (start, freq) within `total`."""
    state, written = 1, bytearray()
    for start, freq in reversed(intervals):
        limit = freq << (_SPARE + 8)
        while state >= limit:
            written.append(state & 255)
            state >>= 8
        state = state // freq * total + start + state % freq
    written += state.to_bytes((state.bit_length() + 7) // 8, "little")
    written.reverse()
    return bytes(written)


class Decoder:
    """Reads what `encode` wrote.

    Args:
        content: untrusted bytes.
        total: as given to `encode`.
    """

    def __init__(self, content: bytes, total: int) -> None:
        self._content = content
        self._total = total
        self._low = total << _SPARE
        self._place = 0
        self._state = 0
        self._refill()

    def _refill(self) -> None:
        while self._state < self._low and self._place < len(self._content):
            self._state = self._state << 8 | self._content[self._place]
            self._place += 1

    def slot(self) -> int:
        """Return the slot of the next symbol, in [0, total).

        Raises:
            PacketError: the payload was used up before: what costs the reader work has to have been sent.
        """
        if not self._state:
            raise PacketError("coded payload ends before its labels do")
        return self._state % self._total

    def advance(self, start: int, freq: int) -> None:
        """Step over the next symbol, which owns that slot."""
        self._state = self._state // self._total * freq + self._state % self._total - start
        self._refill()

    def finish(self) -> None:
        """Refuse a payload that does not end with its last symbol.

        Raises:
            PacketError: bytes are left or missing, or there are others that say the same.
        """
        if self._place != len(self._content) or self._state != 1 or self._content[:1] == b"\0":
            raise PacketError("coded payload does not end where its labels do")
