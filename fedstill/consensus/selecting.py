"""Ensemble selection: only votes from devices that know the domain, only samples that the ensemble agrees about."""

import numpy as np

from fedstill.consensus.averaging import weighted
from fedstill.consensus.votes import Consensus, Votes


def selection(votes: Votes, *, certainty: float = 0.5, ambiguity: float = 1.0) -> Consensus:
    """Mean of the in-domain votes, dropped where it is ambiguous (Selective-FD, Shao et al. 2024, arXiv 2304.01731).

    The device's half, the out-of-distribution score (a density ratio there, k-means in EdgeFD, arXiv 2508.14769), comes
    as abstention or as certainty. The server's half drops samples whose mean lies further than `ambiguity` from the
    one-hot label of its largest class in L1, that is 2 (1 - max q).

    Args:
        votes: the votes.
        certainty: votes below this are left out.
        ambiguity: tau, from 0 (only one-hot means stay) to 2 (all stay).
    """
    found = weighted(votes, (votes.certainty >= certainty).astype(np.float32))
    clear = found.covered & (2 * (1 - found.labels.max(axis=1)) <= ambiguity)
    return Consensus(np.where(clear[:, None], found.labels, np.float32(0)), clear)
