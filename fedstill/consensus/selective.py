"""A teacher that selects whom it learns from, sample by sample."""

import numpy as np

from fedstill.consensus.averaging import weighted
from fedstill.consensus.votes import Consensus, Votes

SMALLEST = 0.02  # entropy in nats below which a vote is no surer: its inverse is the largest exponent of the softmax


def selective_teacher(votes: Votes) -> Consensus:
    """Leave what the teacher is sure of to itself; elsewhere weigh the devices by the inverse entropy of their votes.

    FedGEMS (Cheng, Wu, Xiao and Liu 2021, arXiv 2110.11027), whose server model f_s learns about a public sample x from
    its own earlier knowledge where that is right, S_1, and where it is not, S_2, from sum_k alpha_k(x) f_k(x) with
    alpha(x) = softmax_k(1 / H(f_k(x))). There x has a label that tells which; here the guard set tells from which
    confidence on the teacher is right (`Votes.unsure`). What is sure is not covered, and so remains the teacher's.

    Nothing but the floor of H bounds a device: who claims to be sure has the last word where the teacher is not.

    Args:
        votes: the votes.
    """
    devices, samples, classes = votes.probabilities.shape
    places = np.arange(samples) if votes.unsure is None else np.flatnonzero(votes.unsure)
    present = votes.present[:, places]
    rows = np.empty((devices, len(places), classes), dtype=np.float32)
    alpha = np.empty(present.shape, dtype=np.float32)
    logs, ones = np.empty((len(places), classes), dtype=np.float32), np.ones(classes, dtype=np.float32)
    for place, own in enumerate(votes.probabilities):
        part = np.take(own, places, axis=0, out=rows[place], mode="clip")  # the default mode would buffer `out`
        np.log(np.maximum(part, np.finfo(np.float32).tiny, out=logs), out=logs)
        np.matmul(np.multiply(part, logs, out=logs), -ones, out=alpha[place])  # H
    np.divide(1, np.maximum(alpha, np.float32(SMALLEST), out=alpha), out=alpha)
    alpha[~present] = -np.inf
    np.exp(np.subtract(alpha, alpha.max(axis=0, initial=0), out=alpha), out=alpha)  # `weighted` divides by their sum
    found = weighted(Votes(rows, present, votes.certainty[:, places], votes.class_priors), alpha)
    labels, covered = np.zeros((samples, classes), dtype=np.float32), np.zeros(samples, dtype=np.bool_)
    labels[places], covered[places] = found.labels, found.covered
    return Consensus(labels, covered)
