"""Means of the votes, device by device in one pass over them."""

import numpy as np

from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Bools, Floats


def spread(values: Floats | Bools, classes: int) -> Floats:
    """Return a value per sample as one per sample and class `[samples, classes]`: faster than broadcasting over few."""
    return np.repeat(values.astype(np.float32), classes).reshape(-1, classes)


def weighted(votes: Votes, weights: Floats) -> Consensus:
    """Mean of the votes with weights per device and sample, over those present.

    Args:
        votes: the votes.
        weights: not negative `[devices, samples]`.
    """
    counted = np.where(votes.present, weights, 0).astype(np.float32)
    _, samples, classes = votes.probabilities.shape
    sums = np.zeros((samples, classes), dtype=np.float32)
    product = np.empty_like(sums)
    for rows, own in zip(votes.probabilities, counted, strict=True):
        if (own == 1).all():
            sums += rows
        else:
            sums += np.multiply(rows, spread(own, classes), out=product)
    total = counted.sum(axis=0)
    covered = total > 0
    labels = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=covered[:, None])
    return Consensus(labels, covered)


def mean(votes: Votes) -> Consensus:
    """Plain mean over those who answered (FedMD, Li and Wang 2019, arXiv 1910.03581, step "aggregate")."""
    return weighted(votes, np.ones(votes.present.shape, dtype=np.float32))
