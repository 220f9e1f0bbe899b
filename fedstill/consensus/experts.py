"""Logarithmic opinion pools: each class judged by those who know it, and one expert's "no" is heard."""

from collections.abc import Callable

import numpy as np

from fedstill.consensus.averaging import spread
from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Bools, Floats

FLOOR = 1e-3  # smallest probability that a logarithm hears: below it, votes are no more certain
UNHELD = 1e-6  # a class whose weights sum to less is held by no voter


def log_pool(votes: Votes, weights: Callable[[int], Floats]) -> Consensus:
    """Pool log-votes with weights that differ by class: log q(y|x) = sum_d w_dxy log p_d(y|x) / sum_d w_dxy.

    Where the weights of a class sum to nothing, all who are present count alike.

    Args:
        votes: the votes.
        weights: of a device's place, not negative, zero where absent `[samples, classes]`.
    """
    devices, samples, classes = votes.probabilities.shape
    total = np.zeros((samples, classes), dtype=np.float32)
    for place in range(devices):
        total += weights(place)
    unheld = total <= UNHELD
    some_unheld = bool(unheld.any())
    if some_unheld:
        voters = votes.present.sum(axis=0).astype(np.float32)
        total = np.where(unheld, voters[:, None], total)
    sums = np.zeros((samples, classes), dtype=np.float32)
    logs = np.empty_like(sums)
    for place, rows in enumerate(votes.probabilities):
        np.log(np.maximum(rows, np.float32(FLOOR), out=logs), out=logs)
        own = weights(place)
        if some_unheld:
            own = np.where(unheld, spread(votes.present[place], classes), own)
        sums += np.multiply(own, logs, out=logs)
    covered: Bools = np.asarray(votes.present.any(axis=0))
    pooled = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    odds = np.exp(pooled - pooled.max(axis=1, keepdims=True)) * covered[:, None]
    norm = odds.sum(axis=1, keepdims=True)
    return Consensus(np.divide(odds, norm, out=np.zeros_like(odds), where=norm > 0), covered)


def by_class(votes: Votes, shares: Floats) -> Callable[[int], Floats]:
    """Return the weights of `log_pool` for a weight per device and class `[devices, classes]`, over those present."""
    _, samples, classes = votes.probabilities.shape

    def weights(place: int) -> Floats:
        own = np.tile(shares[place].astype(np.float32), samples).reshape(samples, classes)
        present = votes.present[place]
        return own if present.all() else own * spread(present, classes)

    return weights


def class_experts(votes: Votes) -> Consensus:
    """Each class judged by those who hold it: log q(y|x) = sum_d w_dy log p_d(y|x), w_dy = pi_d(y) / sum_d pi_d(y).

    A logarithmic opinion pool (Genest and Zidek 1986, Statistical Science 1) whose weights differ by class: a device
    knows what the classes of its own data look like and little of the others, so its word about class y counts by the
    share pi_d(y) of that class in its data. Unlike the arithmetic mean, one expert that rules a class out is heard.
    The shares of a device sum to one and its log-votes have a floor, so its weight is bounded; but nothing checks the
    shares: one that claims all of its data in one class may hold most of that class's weight.
    Classes that no voter holds are judged by all voters alike.
    """
    return log_pool(votes, by_class(votes, votes.class_priors))


def mixed(first: Floats, second: Floats, share: Floats) -> Floats:
    """Geometric mixture first^(1 - share) * second^share, normalized.

    Args:
        first: rows on the simplex, or zero where `share` is one `[samples, classes]`.
        second: rows on the simplex `[samples, classes]`.
        share: weight of the second, in [0, 1] `[samples]`.
    """
    part = share[:, None]
    logs = (1 - part) * np.log(np.maximum(first, FLOOR)) + part * np.log(np.maximum(second, FLOOR))
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    result: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
