"""The geometric median: the point whose summed distance to all votes is least."""

import numpy as np

from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Bools, Floats

BLOCK = 1 << 20  # votes at once: a few MB however many samples there are
NEAR = 1e-5  # a vote nearer than this weighs as if it were this far: Weiszfeld's weights have no other bound


def geometric_median(votes: Votes, *, iterations: int = 50, tolerance: float = 1e-4) -> Consensus:
    """Geometric median over those who answered, by Weiszfeld's iteration from the mean.

    Weiszfeld 1937; smoothed as in RFA (Pillutla, Kakade and Harchaoui 2019, arXiv 1912.13445). Half of the voters must
    collude to move it without bound. It is a mixture of the votes, so it stays on the simplex.

    Args:
        votes: the votes.
        iterations: at most.
        tolerance: stop when no sample's label moves further in one iteration.
    """
    devices, samples, classes = votes.probabilities.shape
    labels = np.zeros((samples, classes), dtype=np.float32)
    covered: Bools = np.asarray(votes.present.any(axis=0))
    step = max(1, BLOCK // (max(1, devices) * classes))
    for start in range(0, samples, step):
        part = slice(start, start + step)
        present = votes.present[:, part].astype(np.float32)
        rows = np.where(votes.present[:, part, None], votes.probabilities[:, part], np.float32(0))
        centre = _mixture(rows, present)
        for _ in range(iterations):
            away = rows - centre
            distance = np.sqrt(np.einsum("dsc,dsc->ds", away, away))
            new = _mixture(rows, present / np.maximum(distance, np.float32(NEAR)))
            moved = float(np.abs(new - centre).max(initial=0))
            centre = new
            if moved < tolerance:
                break
        labels[part] = centre
    return Consensus(labels, covered)


def _mixture(rows: Floats, weights: Floats) -> Floats:
    total = weights.sum(axis=0)[:, None]
    sums = np.einsum("ds,dsc->sc", weights, rows)
    result: Floats = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return result
