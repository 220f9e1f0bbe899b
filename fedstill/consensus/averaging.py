"""Means of the votes, device by device in one pass over them."""

import numpy as np

from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Bools, Floats


def outer(by_sample: Floats | Bools, by_class: Floats, out: Floats) -> Floats:
    """Write the products of a value per sample and one per class into `out` `[samples, classes]`.

    As a matrix product, which is several times faster than broadcasting over a few classes.
    """
    product: Floats = np.dot(by_sample.astype(np.float32)[:, None], by_class[None, :], out=out)
    return product


def weighted(votes: Votes, weights: Floats | None = None) -> Consensus:
    """Mean of the votes with weights per device and sample, over those present.

    Args:
        votes: the votes.
        weights: not negative `[devices, samples]`; None: all alike.
    """
    _, samples, classes = votes.probabilities.shape
    ones = np.ones(classes, dtype=np.float32)
    sums = np.zeros((samples, classes), dtype=np.float32)
    product = np.empty_like(sums)
    total = np.zeros(samples, dtype=np.float32)
    for place, (rows, present) in enumerate(zip(votes.probabilities, votes.present, strict=True)):
        if weights is None:  # what is absent is zero
            total += present
            sums += rows
            continue
        own = weights[place] * present
        total += own
        sums += np.multiply(outer(own, ones, product), rows, out=product)
    covered = total > 0
    labels = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=covered[:, None])
    return Consensus(labels, covered)


def mean(votes: Votes) -> Consensus:
    """Plain mean over those who answered (FedMD, Li and Wang 2019, arXiv 1910.03581, step "aggregate")."""
    return weighted(votes)
