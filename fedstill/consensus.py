"""The consensus that the server makes of the devices' and the teacher's soft labels: pure functions.

A rule takes `Votes` and returns a `Consensus`. Each sample may have another set of voters; no rule divides by the
number of devices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels

FLOOR = 1e-3  # smallest probability that a logarithm hears: below it, votes are no more certain
UNHELD = 1e-6  # a class whose shares sum to less is held by no voter


@dataclass(frozen=True)
class Votes:
    """A round's soft labels, stacked by device in ascending order.

    Attributes:
        probabilities: zero where absent `[devices, samples, classes]`.
        present: who answered about what `[devices, samples]`.
        certainty: in [0, 1], one where the sender gave none `[devices, samples]`.
        class_priors: share of each class in a device's data, uniform where it gave none `[devices, classes]`.
        teacher: the teacher's soft labels, None without a teacher `[samples, classes]`.
    """

    probabilities: Floats
    present: Bools
    certainty: Floats
    class_priors: Floats
    teacher: Floats | None = None

    @staticmethod
    def stack(ids: Ints, votes: Mapping[int, SoftLabels], teacher: Floats | None = None) -> "Votes":
        """Stack the soft labels of a round's devices, all about the samples `ids`."""
        labels = [votes[device] for device in sorted(votes)]
        classes = labels[0].probabilities.shape[1]
        uniform = np.full(classes, 1 / classes, dtype=np.float32)
        sure = np.ones(len(ids), dtype=np.float32)
        return Votes(
            probabilities=np.stack([label.probabilities for label in labels]),
            present=np.stack([label.present for label in labels]),
            certainty=np.stack([sure if label.certainty is None else label.certainty for label in labels]),
            class_priors=np.stack([uniform if label.class_prior is None else label.class_prior for label in labels]),
            teacher=teacher,
        )


@dataclass(frozen=True)
class Consensus:
    """What the votes agree on.

    Attributes:
        labels: rows on the simplex, zero where nobody voted `[samples, classes]`.
        covered: samples that somebody voted on `[samples]`.
    """

    labels: Floats
    covered: Bools


Rule = Callable[[Votes], Consensus]


def weighted(votes: Votes, weights: Floats) -> Consensus:
    """Mean of the votes with weights per device and sample, over those present.

    Args:
        votes: the votes.
        weights: not negative `[devices, samples]`.
    """
    counted = np.where(votes.present, weights, 0).astype(np.float32)
    total = counted.sum(axis=0)
    sums = np.einsum("ds,dsc->sc", counted, votes.probabilities)
    covered = total > 0
    labels = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=covered[:, None])
    return Consensus(labels.astype(np.float32), covered)


def mean(votes: Votes) -> Consensus:
    """Plain mean over those who answered (FedMD, Li and Wang 2019, arXiv 1910.03581, step "aggregate")."""
    return weighted(votes, np.ones(votes.present.shape, dtype=np.float32))


def class_experts(votes: Votes) -> Consensus:
    """Each class judged by those who hold it: log q(y|x) = sum_d w_dy log p_d(y|x), w_dy = pi_d(y) / sum_d pi_d(y).

    A logarithmic opinion pool (Genest and Zidek 1986, Statistical Science 1) whose weights differ by class: a device
    knows what the classes of its own data look like and little of the others, so its word about class y counts by the
    share pi_d(y) of that class in its data. Unlike the arithmetic mean, one expert that rules a class out is heard.
    The shares of a device sum to one and its log-votes have a floor: whatever it claims, its weight is bounded.
    Classes that no voter holds are judged by all voters alike.
    """
    held = np.where(votes.present[:, :, None], votes.class_priors[:, None, :], 0)  # [devices, samples, classes]
    alike = votes.present[:, :, None].astype(np.float32)
    weights = np.where(held.sum(axis=0) > UNHELD, held, alike)
    total = weights.sum(axis=0)
    sums = (weights * np.log(np.maximum(votes.probabilities, FLOOR))).sum(axis=0)
    covered: Bools = np.asarray(votes.present.any(axis=0))
    pooled = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    odds = np.exp(pooled - pooled.max(axis=1, keepdims=True)) * covered[:, None]
    norm = odds.sum(axis=1, keepdims=True)
    labels = np.divide(odds, norm, out=np.zeros_like(odds), where=norm > 0)
    return Consensus(labels.astype(np.float32), covered)


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


from fedstill.consensus_density import density_experts  # noqa: E402

RULES: dict[str, Rule] = {"mean": mean, "class-experts": class_experts, "density-experts": density_experts}
