"""Means weighted by how sure the voters are: by the certainty that they claim, or by the entropy of what they say.

Either is the voter's own word. So each device's total over the round is bounded by the median device's: who claims to
be sure of everything has as much to say in all as one that is sure of its own domain alone, and less on each sample.
"""

import numpy as np

from fedstill.consensus.averaging import weighted
from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Floats


def bounded(votes: Votes, weights: Floats) -> Floats:
    """Scale down each device whose total weight exceeds the median device's `[devices, samples]`.

    Among those who are present, so that abstaining is no way to gain weight elsewhere.

    Args:
        votes: the votes.
        weights: in [0, 1] `[devices, samples]`.
    """
    counted: Floats = weights * votes.present
    totals = counted.sum(axis=1, dtype=np.float64)
    spenders = totals[totals > 0]
    if len(spenders) == 0:
        return counted
    scale = np.minimum(1, np.median(spenders) / np.maximum(totals, spenders.min())).astype(np.float32)
    return counted if (scale == 1).all() else np.multiply(counted, scale[:, None], out=counted)


def _mean_of_the_sure(votes: Votes, weights: Floats) -> Consensus:
    """Weigh by what is left of the claims; where nobody claims anything, all voters count alike."""
    claims = bounded(votes, weights)
    nothing = ~claims.any(axis=0)
    if nothing.any():
        claims[:, nothing] = 1
    return weighted(votes, claims)


def certainty_weighted(votes: Votes) -> Consensus:
    """Mean weighted by each device's certainty that a sample lies in its own domain, bounded by device.

    FedAUX (Sattler et al. 2021, arXiv 2102.02514) weighs by such scores.
    """
    return _mean_of_the_sure(votes, votes.certainty)


def entropy_weighted(votes: Votes) -> Consensus:
    """Mean weighted by 1 - H(p) / log C: a vote that says nothing weighs nothing; bounded by device.

    The idea of weighing an ensemble's members by how peaked they are is Fed-ET's (Cho et al. 2022, arXiv 2204.12703),
    which takes the variance of the logits; entropy needs no logits.
    """
    _, samples, classes = votes.probabilities.shape
    scale = np.full(classes, 1 / np.log(classes), dtype=np.float32)
    weights = np.empty(votes.present.shape, dtype=np.float32)
    logs = np.empty((samples, classes), dtype=np.float32)
    for place, rows in enumerate(votes.probabilities):
        np.log(np.maximum(rows, np.finfo(np.float32).tiny, out=logs), out=logs)
        np.matmul(np.multiply(rows, logs, out=logs), scale, out=weights[place])  # -H / log C
    np.clip(np.add(weights, 1, out=weights), 0, 1, out=weights)
    return _mean_of_the_sure(votes, weights)
