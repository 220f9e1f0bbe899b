"""What every rule takes and returns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedstill.consensus.ballots import Ballots, DiskRows
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels, entropy


class Rows(Protocol):
    """Probabilities `[devices, samples, classes]`: an array, or in a round too large for memory `ballots.DiskRows`.

    What rules may do with either: iterate over the devices, and take `[:, a:b]`, a slice of samples of all of them.
    `numpy.asarray` makes an array of either, which takes the memory.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Devices, samples, classes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Floats]: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __array__(self) -> Floats: ...


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
        reputation: of each device after the rounds before, in [0, 1], NaN about a class that it was not measured by
            yet; None: nobody has any `[devices, classes]`.
    """

    probabilities: Rows
    present: Bools
    certainty: Floats
    class_priors: Floats
    teacher: Floats | None = None
    unsure: Bools | None = None
    reputation: Floats | None = None

    @staticmethod
    def none(samples: int, classes: int) -> "Votes":
        """Return the votes of nobody about so many samples."""
        nobody = np.zeros((0, samples), dtype=np.float32)
        rows = np.zeros((0, samples, classes), dtype=np.float32)
        return Votes(rows, nobody.astype(np.bool_), nobody, np.zeros((0, classes), dtype=np.float32))

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
        labels = votes.heads() if isinstance(votes, Ballots) else [votes[device] for device in devices]
        classes = labels[0].probabilities.shape[1]
        uniform = np.full(classes, 1 / classes, dtype=np.float32)
        unknown = np.full(classes, np.nan, dtype=np.float32)
        sure = np.ones(len(ids), dtype=np.float32)
        certainties = [sure if label.certainty is None else label.certainty for label in labels]
        nobody = all(label.certainty is None for label in labels)  # then one row stands for all
        return Votes(
            probabilities=votes.rows()
            if isinstance(votes, Ballots)
            else np.stack([own.probabilities for own in labels]),
            present=np.stack([label.present for label in labels]),
            certainty=np.broadcast_to(sure, (len(labels), len(ids))) if nobody else np.stack(certainties),
            class_priors=np.stack([uniform if label.class_prior is None else label.class_prior for label in labels]),
            teacher=teacher,
            unsure=unsure,
            reputation=np.stack([reputation.get(device, unknown) for device in devices]) if reputation else None,
        )

    def about(self, samples: Ints) -> "Votes":
        """Return the votes about some of the samples, without what is known of the teacher and of before."""
        rows = self.probabilities
        part = rows.about(samples) if isinstance(rows, DiskRows) else np.take(rows, samples, axis=1)
        return Votes(part, self.present[:, samples], self.certainty[:, samples], self.class_priors)


@dataclass(frozen=True)
class Consensus:
    """What the votes agree on.

    Attributes:
        labels: rows on the simplex, zero where not covered `[samples, classes]`.
        covered: samples that have a consensus: where somebody voted, and the rule drops nothing `[samples]`.
        reputation: of each device after this round, for a rule that keeps one; NaN where nothing was measured yet
            `[devices, classes]`.
    """

    labels: Floats
    covered: Bools
    reputation: Floats | None = None

    @staticmethod
    def none(samples: int, classes: int) -> "Consensus":
        """Return that of nobody about so many samples."""
        return Consensus(np.zeros((samples, classes), dtype=np.float32), np.zeros(samples, dtype=np.bool_))


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
