"""What every rule takes and returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels, entropy


@dataclass(frozen=True)
class Votes:
    """A round's soft labels, stacked by device in ascending order.

    Attributes:
        probabilities: zero where absent `[devices, samples, classes]`.
        present: who answered about what `[devices, samples]`.
        certainty: in [0, 1], one where the sender gave none `[devices, samples]`.
        class_priors: share of each class in a device's data, uniform where it gave none `[devices, classes]`.
        teacher: the teacher's soft labels, None without a teacher `[samples, classes]`.
        unsure: samples where the teacher's confidence is not enough, by the guard set; None: all `[samples]`.
        reputation: of each device after the rounds before, in [0, 1], NaN where it has none yet; None: nobody has any
            `[devices, classes]`.
    """

    probabilities: Floats
    present: Bools
    certainty: Floats
    class_priors: Floats
    teacher: Floats | None = None
    unsure: Bools | None = None
    reputation: Floats | None = None

    @staticmethod
    def stack(
        ids: Ints,
        votes: Mapping[int, SoftLabels],
        teacher: Floats | None = None,
        unsure: Bools | None = None,
        reputation: Mapping[int, Floats] | None = None,
    ) -> "Votes":
        """Stack the soft labels of a round's devices, all about the samples `ids`.

        Args:
            ids: proxy samples, ascending `[samples]`.
            votes: soft labels by device.
            teacher: the teacher's `[samples, classes]`.
            unsure: where the teacher is not sure `[samples]`.
            reputation: `[classes]` by device, of the devices that have one.
        """
        devices = sorted(votes)
        labels = [votes[device] for device in devices]
        classes = labels[0].probabilities.shape[1]
        uniform = np.full(classes, 1 / classes, dtype=np.float32)
        unknown = np.full(classes, np.nan, dtype=np.float32)
        sure = np.ones(len(ids), dtype=np.float32)
        return Votes(
            probabilities=np.stack([label.probabilities for label in labels]),
            present=np.stack([label.present for label in labels]),
            certainty=np.stack([sure if label.certainty is None else label.certainty for label in labels]),
            class_priors=np.stack([uniform if label.class_prior is None else label.class_prior for label in labels]),
            teacher=teacher,
            unsure=unsure,
            reputation=np.stack([reputation.get(device, unknown) for device in devices]) if reputation else None,
        )


@dataclass(frozen=True)
class Consensus:
    """What the votes agree on.

    Attributes:
        labels: rows on the simplex, zero where not covered `[samples, classes]`.
        covered: samples that have a consensus: where somebody voted, and the rule drops nothing `[samples]`.
        reputation: of each device after this round, for a rule that keeps one `[devices, classes]`.
    """

    labels: Floats
    covered: Bools
    reputation: Floats | None = None


Rule = Callable[[Votes], Consensus]


def entropies(votes: Votes, labels: Floats) -> tuple[float | None, float | None]:
    """Return the mean entropy of the votes and of the labels made of them, in nats, about the same samples.

    Both are None when there are none: nobody answered, or nothing was due.

    Args:
        votes: the votes; what is absent does not count.
        labels: what is published about the same samples; a row of zeros is not published `[samples, classes]`.
    """
    counted = labels.any(axis=1) & votes.present.any(axis=0)
    present = votes.present & counted
    if not present.any():
        return None, None
    before = sum(
        float(entropy(rows[there]).sum(dtype=np.float64))
        for rows, there in zip(votes.probabilities, present, strict=True)
    )
    return before / int(present.sum()), float(entropy(labels[counted]).mean())
