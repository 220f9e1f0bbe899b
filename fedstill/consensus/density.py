"""Consensus of devices that know their own domain: each class is decided by those who hold it, or left undecided."""

import numpy as np

from fedstill.consensus.votes import Consensus, Votes

DOUBT = 0.1  # weight of a voter who holds every class and never supports one
MARGIN = 0.3  # by which the best class's support must exceed all others' together


def density_experts(votes: Votes) -> Consensus:
    """Support of each class by its holders: s_c(x) = sum_d pi_d(c) v_d(c | x) / (DOUBT + sum_d pi_d(c)).

    v_d(c | x) = certainty_d(x) p_d(c | x) is the probability that device d gives to class c where it may also say that
    x is of none of its classes; an abstention is v = 0, a word against every class that the device holds. So a class
    is supported as far as those who hold it agree that x is of it, and a class whose holders were not asked finds no
    support instead of strangers': with few of many devices asked under label skew, most wrong labels come from there.
    A sample is covered where the best class has MARGIN more support than all others together; the rest keep the label
    that they have, or stay without.

    The idea to leave out what lies outside a device's domain is Selective-FD's (Shao et al. 2024, Nature
    Communications 15). A device's shares sum to one, so its weight is bounded whatever certainty it claims.
    """
    sums = np.zeros(votes.probabilities.shape[1:], dtype=np.float32)
    heard = np.where(votes.present, votes.certainty, 0)
    for rows, sure, shares in zip(votes.probabilities, heard, votes.class_priors, strict=True):
        sums += rows * (sure[:, None] * shares)  # device by device: what is summed stays in the processor's cache
    support = sums / (DOUBT + votes.class_priors.sum(axis=0))
    total = support.sum(axis=1)
    covered = 2 * support.max(axis=1) - total > MARGIN
    labels = np.divide(support, total[:, None], out=np.zeros_like(support), where=covered[:, None])
    return Consensus(labels.astype(np.float32), covered)
