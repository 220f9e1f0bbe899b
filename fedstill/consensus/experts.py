"""Logarithmic opinion pools: each class judged by those who know it, and one expert's "no" is heard."""

import numpy as np

from fedstill.consensus.averaging import outer
from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Bools, Floats

FLOOR = 1e-3  # smallest probability that a logarithm hears: below it, votes are no more certain
UNHELD = 1e-6  # a class whose weights sum to less is held by no voter


def log_pool(votes: Votes, shares: Floats, claims: Floats | None = None) -> Consensus:
    """Pool log-votes with weights that differ by class: log q(y|x) = sum_d w_dxy log p_d(y|x) / sum_d w_dxy.

    The weights w_dxy are claims times shares. Where they sum to nothing, all who are present count alike.

    Args:
        votes: the votes.
        shares: not negative `[devices, classes]`.
        claims: not negative, zero where absent; None: one where present `[devices, samples]`.
    """
    _, samples, classes = votes.probabilities.shape
    heard = votes.present if claims is None else claims
    shares = shares.astype(np.float32)
    total = heard.astype(np.float32).T @ shares  # of all devices at once; the log-votes need one pass each
    sums = np.zeros((samples, classes), dtype=np.float32)
    weights, logs = np.empty((2, samples, classes), dtype=np.float32)
    for rows, own, share in zip(votes.probabilities, heard, shares, strict=True):
        outer(own, share, weights)
        sums += np.multiply(weights, _logs(rows, logs), out=logs)
    unheld = total <= UNHELD
    if unheld.any():
        alike = _sum_of_logs(votes)
        sums = np.where(unheld, alike, sums)
        total = np.where(unheld, votes.present.sum(axis=0)[:, None].astype(np.float32), total)
    covered: Bools = np.asarray(votes.present.any(axis=0))
    pooled = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    odds = np.exp(pooled - pooled.max(axis=1, keepdims=True)) * covered[:, None]
    norm = odds.sum(axis=1, keepdims=True)
    return Consensus(np.divide(odds, norm, out=np.zeros_like(odds), where=norm > 0), covered)


def _logs(rows: Floats, out: Floats) -> Floats:
    result: Floats = np.log(np.maximum(rows, np.float32(FLOOR), out=out), out=out)
    return result


def _sum_of_logs(votes: Votes) -> Floats:
    sums = np.zeros(votes.probabilities.shape[1:], dtype=np.float32)
    logs = np.empty_like(sums)
    for rows, present in zip(votes.probabilities, votes.present, strict=True):
        sums += _logs(rows, logs) * present[:, None]
    return sums


def class_experts(votes: Votes) -> Consensus:
    """Each class judged by those who hold it: log q(y|x) = sum_d w_dy log p_d(y|x), w_dy = pi_d(y) / sum_d pi_d(y).

    A logarithmic opinion pool (Genest and Zidek 1986, Statistical Science 1) whose weights differ by class: a device
    knows what the classes of its own data look like and little of the others, so its word about class y counts by the
    share pi_d(y) of that class in its data. Unlike the arithmetic mean, one expert that rules a class out is heard.
    The shares of a device sum to one and its log-votes have a floor, so its weight is bounded; but nothing checks the
    shares: one that claims all of its data in one class may hold most of that class's weight.
    Classes that no voter holds are judged by all voters alike.
    """
    return log_pool(votes, votes.class_priors)


def mixed(first: Floats, second: Floats, share: Floats) -> Floats:
    """Geometric mixture first^(1 - share) * second^share, normalized; a share of 0 or 1 leaves one of them as it is.

    Args:
        first: rows on the simplex, or zero where `share` is one `[samples, classes]`.
        second: rows on the simplex `[samples, classes]`.
        share: weight of the second, in [0, 1] `[samples]`.
    """
    part = share[:, None]
    logs = (1 - part) * np.log(np.maximum(first, FLOOR)) + part * np.log(np.maximum(second, FLOOR))
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    between: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    result: Floats = np.where(part == 0, first, np.where(part == 1, second, between))
    return result
