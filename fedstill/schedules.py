"""Temperature schedules: what T is after a share of the rounds.

Each takes `progress` in [0, 1] (0: first round, 1: last) and returns a temperature between `start` and `end`.
"""

import math
from collections.abc import Callable

Schedule = Callable[[float, float, float], float]


def constant(progress: float, start: float, end: float) -> float:
    """T = start."""
    return start


def linear(progress: float, start: float, end: float) -> float:
    """T moves by the same amount in each round."""
    return start + (end - start) * progress


def exponential(progress: float, start: float, end: float) -> float:
    """T moves by the same factor in each round."""
    return start * math.pow(end / start, progress)


def cosine(progress: float, start: float, end: float) -> float:
    """T follows half a cosine wave, slow at both ends (Loshchilov and Hutter 2017, arXiv 1608.03983, one period)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "exponential": exponential,
    "cosine": cosine,
}


def progress_of(round_number: int, rounds: int) -> float:
    """Return how far a round is between the first (0) and the last (1)."""
    return (round_number - 1) / (rounds - 1) if rounds > 1 else 0.0
