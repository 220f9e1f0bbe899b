"""How rows of unsigned numbers are coded when nothing is known about them: byte by byte, highest first.

The high byte of a float is its sign and exponent and compresses; the others hardly do. With a base, a row that has not
changed is one bit, and the others are coded as differences, modulo the numbers' own range.
"""

import numpy as np

from fedstill.codecs.bits import Coder, tree
from fedstill.codecs.interface import Codes
from fedstill.soft_labels import Bools


def code_planes(coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
    """Pass rows of unsigned integers through a coder; arguments as in `Codec.code`."""
    planes = codes.dtype.itemsize
    size = 1 << 8 * planes
    rows = [
        _row(coder, row, old if said else None, planes, size)
        for row, old, said in zip(codes.tolist(), base.tolist(), known.tolist(), strict=True)
    ]
    return np.array(rows, dtype=codes.dtype).reshape(codes.shape)


def _row(coder: Coder, row: list[int], base: list[int] | None, planes: int, size: int) -> list[int]:
    if base is not None and coder.bit("same", int(row == base)):
        return base
    start = [0] * len(row) if base is None else base
    return [
        (_value(coder, (new - old) % size, base is not None, planes) + old) % size
        for new, old in zip(row, start, strict=True)
    ]


def _value(coder: Coder, value: int, is_difference: bool, planes: int) -> int:
    high = tree(coder, ("high", is_difference), value >> 8 * (planes - 1), 8)
    found = high
    for plane in range(planes - 2, -1, -1):
        context = (high if plane == planes - 2 else -1, plane, is_difference)
        found = found << 8 | tree(coder, context, value >> 8 * plane & 255, 8)
    return found
