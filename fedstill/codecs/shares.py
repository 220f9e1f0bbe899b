"""How rows of counts that share out a fixed total are coded: the largest first, then the others until nothing is left.

A row costs what is surprising about it. In full: the class of the largest count, what it leaves, and who gets that.
With a base: whether the row is the base's, else whether its largest is, else as in full, in the context of the base's
counts.
"""

import numpy as np

from fedstill.codecs.bits import Coder, number, tree
from fedstill.codecs.interface import Codes
from fedstill.errors import PacketError
from fedstill.soft_labels import Bools


def code_shares(coder: Coder, codes: Codes, base: Codes, known: Bools, total: int) -> Codes:
    """Pass rows of counts that sum to `total` through a coder; arguments as in `Codec.code`."""
    rows = [
        _row(coder, row, old if said else None, total)
        for row, old, said in zip(codes.tolist(), base.tolist(), known.tolist(), strict=True)
    ]
    return np.array(rows, dtype=codes.dtype).reshape(codes.shape)


def _row(coder: Coder, row: list[int], base: list[int] | None, total: int) -> list[int]:
    if base is not None and coder.bit("same", int(row == base)):
        return base
    cells = len(row)
    peak = _peak(coder, row, base)
    held = _bucket(None if base is None else total - base[peak])
    left = number(coder, ("left", held), total - row[peak], total) if total > 1 else 0
    coded = [0] * cells
    coded[peak] = total - left
    others = [cell for cell in range(cells) if cell != peak]
    for cell in others[:-1]:
        if left == 0:
            break
        held = _bucket(None if base is None else base[cell])
        coded[cell] = number(coder, (left.bit_length(), held), row[cell], left)
        left -= coded[cell]
    coded[others[-1]] += left
    return coded


def _peak(coder: Coder, row: list[int], base: list[int] | None) -> int:
    """Code the place of the largest count, the first of equal ones."""
    place = row.index(max(row))
    if base is not None:
        before = base.index(max(base))
        if coder.bit("same peak", int(place == before)):
            return before
    found = tree(coder, "peak", place, (len(row) - 1).bit_length())
    if found >= len(row):
        raise PacketError(f"coded payload names class {found} of {len(row)}")
    return found


def _bucket(count: int | None) -> int:
    return -1 if count is None else count.bit_length()
