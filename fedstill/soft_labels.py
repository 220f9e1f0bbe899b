"""Soft labels about proxy samples, and the draw that says which samples a round is about."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedstill.rng import stream

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SoftLabels:
    """Class probabilities about proxy samples, with what the consensus needs to weigh them.

    Attributes:
        ids: proxy samples, ascending `[samples]`.
        probabilities: rows on the simplex, zero where abstained `[samples, classes]`.
        present: False where the sender abstained `[samples]`.
        certainty: how sure the sender is that a sample lies in its own domain, in [0, 1] `[samples]`; None: not used.
        class_prior: share of each class in the sender's private data `[classes]`; None: not used.
    """

    ids: Ints
    probabilities: Floats
    present: Bools
    certainty: Floats | None = None
    class_prior: Floats | None = None


def one_hot(labels: Ints, classes: int) -> Floats:
    """Return true labels `[samples]` as soft ones `[samples, classes]`."""
    return np.eye(classes, dtype=np.float32)[labels]


def soft_labels(
    ids: Ints,
    probabilities: Floats,
    *,
    present: Bools | None = None,
    certainty: Floats | None = None,
    class_prior: Floats | None = None,
) -> SoftLabels:
    """Build soft labels; without `present` nothing is abstained."""
    answered = np.ones(len(ids), dtype=np.bool_) if present is None else present
    rows = np.where(answered[:, None], probabilities, 0).astype(np.float32)
    return SoftLabels(ids, rows, answered, certainty, class_prior)


def draw(seed: int, round_number: int, population: int, count: int, *, independent: bool = False) -> Ints:
    """Return the proxy samples of a round, ascending `[count]`: the same on both sides, from the seed alone.

    Consecutive rounds walk through a permutation of the proxy set, a new one when it is used up, so that the label
    caches fill as fast as they can; `independent` rounds each draw anew.
    """
    return _drawn(seed, round_number, population, count, independent).copy()


@lru_cache(maxsize=16)
def _drawn(seed: int, round_number: int, population: int, count: int, independent: bool) -> Ints:
    """Draw once for all devices that a process hears or computes: each packet names its draw several times."""
    if independent:
        chosen = stream(seed, "independent-draw", round_number).choice(population, count, replace=False)
        return np.sort(chosen).astype(np.int64)
    per_pass = population // count
    pass_number, slot = divmod(round_number - 1, per_pass)
    order = _order(seed, pass_number, population)
    return np.sort(order[slot * count : (slot + 1) * count]).astype(np.int64)


@lru_cache(maxsize=4)  # a device that missed many rounds joins all their draws
def _order(seed: int, pass_number: int, population: int) -> Ints:
    return stream(seed, "proxy-draw", pass_number).permutation(population)


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy of each row in nats `[samples]`."""
    logs = np.log(np.clip(probabilities, 1e-12, None))
    result: Floats = -(probabilities * logs).sum(axis=-1)
    return result
