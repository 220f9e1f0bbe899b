"""Votes freed from what a device's own class shares make it expect."""

import numpy as np

from fedstill.consensus.averaging import mean
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
    calibrated = np.empty_like(votes.probabilities)
    width = calibrated.shape[2]
    for place, (rows, prior) in enumerate(zip(votes.probabilities, votes.class_priors, strict=True)):
        factors: Floats = (1 / np.maximum(prior, np.float32(floor))).astype(np.float32)
        own = np.multiply(rows, np.tile(factors, len(rows)).reshape(-1, width), out=calibrated[place])
        norm = np.maximum(own @ np.ones(width, np.float32), np.finfo(np.float32).tiny)
        own *= np.repeat(1 / norm, width).reshape(-1, width)
    return mean(Votes(calibrated, votes.present, votes.certainty, votes.class_priors))
