"""Votes freed from what a device's own class shares make it expect."""

import numpy as np

from fedstill.consensus.averaging import outer
from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Floats


def prior_calibrated(votes: Votes, *, floor: float = 0.01) -> Consensus:
    """Mean of p_d(y|x) / pi_d(y), normalized (Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21-41).

    Right for devices that learned without prior correction of their own: a device whose loss adds its log prior to the
    logits (`device.logit_adjustment` = 1) is calibrated already.

    Args:
        votes: the votes.
        floor: smallest prior divided by, so that a class that a device never saw is not blown up out of nothing.
    """
    _, samples, classes = votes.probabilities.shape
    ones = np.ones(classes, dtype=np.float32)
    sums = np.zeros((samples, classes), dtype=np.float32)
    lifted, norms = np.empty((2, samples, classes), dtype=np.float32)
    for rows, present, prior in zip(votes.probabilities, votes.present, votes.class_priors, strict=True):
        factors: Floats = (1 / np.maximum(prior, np.float32(floor))).astype(np.float32)
        np.multiply(outer(present, factors, lifted), rows, out=lifted)
        scale = 1 / np.maximum(lifted @ ones, np.finfo(np.float32).tiny)
        sums += np.multiply(lifted, outer(scale, ones, norms), out=lifted)
    voters = votes.present.sum(axis=0)[:, None]
    labels = np.divide(sums, voters, out=np.zeros_like(sums), where=voters > 0)
    return Consensus(labels, voters[:, 0] > 0)
