"""Rules that sharpen the mean of the votes: entropy reduction aggregation (ERA) and its power form.

They lower the entropy whether or not the votes are right, so neither is a default.
"""

import numpy as np

from fedstill.consensus.averaging import mean
from fedstill.consensus.votes import Consensus, Votes
from fedstill.soft_labels import Floats


def era(votes: Votes, *, temperature: float = 0.1) -> Consensus:
    """softmax(mean / T) of the mean probabilities (DS-FL, Itahara et al. 2020, arXiv 2008.06180).

    Args:
        votes: the votes.
        temperature: T; at 0.1 and below little more than the largest class is left, at 1 the mean is made flatter.
    """
    found = mean(votes)
    return Consensus(_normalized(found.labels / np.float32(temperature), found), found.covered)


def enhanced_era(votes: Votes, *, beta: float = 1.5) -> Consensus:
    """mean^beta / sum mean^beta (SCARLET's enhanced ERA, Azuma et al. 2025, arXiv 2504.19602).

    Args:
        votes: the votes.
        beta: 1 keeps the mean, above 1 sharpens, below flattens.
    """
    found = mean(votes)
    logs = np.log(np.maximum(found.labels, np.finfo(np.float32).tiny))
    return Consensus(_normalized(np.float32(beta) * logs, found), found.covered)


def _normalized(scores: Floats, found: Consensus) -> Floats:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    labels: Floats = odds / odds.sum(axis=1, keepdims=True) * found.covered[:, None]
    return labels
