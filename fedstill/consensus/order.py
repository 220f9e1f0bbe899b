"""Order statistics of each class's probability over the devices, normalized back onto the simplex.

Yin, Chen, Ramchandran and Bartlett 2018, arXiv 1803.01498. With fewer than half of the voters hostile (or no more than
the trimmed share), no class's value leaves the range of the honest votes. The price: an expert that stands alone is a
minority as well, and is not heard.
"""

from collections.abc import Callable

import numpy as np

from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Floats, Ints

BLOCK = 1 << 20  # votes sorted at once: a few MB however many samples there are


def median(votes: Votes) -> Consensus:
    """Coordinate median over those who answered."""

    def middle(ascending: Floats, counts: Ints) -> Floats:
        low, high = ((counts - 1) // 2)[None, :, None], (counts // 2)[None, :, None]
        both = np.take_along_axis(ascending, low, axis=0) + np.take_along_axis(ascending, high, axis=0)
        result: Floats = both[0] / 2
        return result

    return _by_order(votes, middle)


def trimmed_mean(votes: Votes, *, share: float = 0.2) -> Consensus:
    """Mean of each class without the lowest and highest `share` of those who answered.

    Args:
        votes: the votes.
        share: trimmed on either side, below one half; rounded down to whole voters.
    """

    def inner(ascending: Floats, counts: Ints) -> Floats:
        trimmed = np.floor(share * counts).astype(np.int64)
        place = np.arange(len(ascending))[:, None]
        inside = (place >= trimmed) & (place < counts - trimmed)
        sums = np.where(inside[:, :, None], ascending, 0).sum(axis=0)
        result: Floats = sums / (counts - 2 * trimmed)[:, None]
        return result

    return _by_order(votes, inner)


def _by_order(votes: Votes, statistic: Callable[[Floats, Ints], Floats]) -> Consensus:
    """Apply a statistic to the votes in ascending order, absent ones last, block by block of samples.

    Args:
        votes: the votes.
        statistic: of sorted votes `[devices, samples, classes]` and the count of those present `[samples]`, at least 1.
    """
    devices, samples, classes = votes.probabilities.shape
    counts = votes.present.sum(axis=0)
    covered = counts > 0
    labels = np.zeros((samples, classes), dtype=np.float32)
    step = max(1, BLOCK // (max(1, devices) * classes))
    for start in range(0, samples, step):
        part = slice(start, start + step)
        rows = np.where(votes.present[:, part, None], votes.probabilities[:, part], np.float32(np.inf))
        rows.sort(axis=0)
        found = covered[part]
        labels[part][found] = statistic(rows[:, found], counts[part][found])
    total = labels.sum(axis=1, keepdims=True)
    # No class is given anything by half of the voters: they agree on nothing.
    nothing = np.full_like(labels, 1 / classes) * covered[:, None]
    return Consensus(np.divide(labels, total, out=nothing, where=total > 0), covered)
