"""Non-decreasing sequences as their place in a list of all of them, so that none takes more bits than it must.

The combinatorial number system (Knuth, The Art of Computer Programming 4A, 7.2.1.3). A sequence s_1 <= ... <= s_m of
integers in [0, top] is one of binom(top + m, m), and its place is sum_i binom(s_i + i - 1, i). It stands for shares of
a whole (s_i: the sum of the first i counts) as well as for a subset (s_i: the i-th member minus i - 1).
"""

from functools import lru_cache
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from fedstill.soft_labels import Ints

Places = npt.NDArray[Any]  # uint64 where they fit, else Python integers


def sequences(length: int, top: int) -> int:
    """Return how many non-decreasing sequences of `length` integers in [0, top] there are."""
    return comb(top + length, length)


@lru_cache(maxsize=16)
def _steps(length: int, top: int) -> Places:
    """Return binom(s + i - 1, i) for i = 1..length `[length, top + 1]`."""
    kind = np.uint64 if sequences(length, top) < 2**63 else object
    return np.array([[comb(s + i - 1, i) for s in range(top + 1)] for i in range(1, length + 1)], dtype=kind)


def ranks(sequences_: Ints, top: int) -> list[int]:
    """Return the place of each non-decreasing row `[rows, length]`."""
    length = sequences_.shape[1]
    steps = _steps(length, top)
    total = np.zeros(len(sequences_), dtype=steps.dtype)
    for place in range(length):
        total += steps[place][sequences_[:, place]]
    result: list[int] = total.tolist()
    return result


def unrank(places: list[int], length: int, top: int) -> Ints:
    """Return the non-decreasing rows at `places`, each below `sequences(length, top)` `[rows, length]`."""
    steps = _steps(length, top)
    left = np.array(places, dtype=steps.dtype)
    rows = np.zeros((len(places), length), dtype=np.int64)
    for place in range(length - 1, -1, -1):
        rows[:, place] = np.searchsorted(steps[place], left, side="right") - 1
        left -= steps[place][rows[:, place]]
    return rows
