"""Numbers below a radix as bytes, without the fractions of a bit that fixed fields waste."""

import math
from collections.abc import Sequence

from fedstill.codecs import ans
from fedstill.errors import PacketError


def packed_bytes(count: int, radix: int) -> int:
    """Return the largest size of `count` digits: count * log2(radix) bits, to within a byte."""
    rounding = count * 2.0**-23  # of the coder's state, in bits
    return math.ceil((count * math.log2(radix) + 1 + rounding) / 8) if count else 0


def pack(digits: Sequence[int], radix: int) -> bytes:
    """Return the bytes of digits in [0, radix)."""
    return ans.encode([(digit, 1) for digit in digits], radix) if len(digits) else b""


def unpack(content: bytes, count: int, radix: int) -> list[int]:
    """Return `count` digits.

    Raises:
        PacketError: the content is not that of `count` digits.
    """
    largest = packed_bytes(count, radix)
    if not largest - 1 <= len(content) <= largest:
        raise PacketError(f"payload has {len(content)} bytes, {largest} expected")
    if count == 0:
        return []
    decoder, digits = ans.Decoder(content, radix), []
    for _ in range(count):
        digits.append(decoder.slot())
        decoder.advance(digits[-1], 1)
    decoder.finish()
    return digits
