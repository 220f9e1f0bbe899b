"""Which answers decide about which sample when answers may come late.

An answer says something about the samples that its device was asked about, from the cache that its device held then.
So votes are kept by the round that asked, and one that comes late joins the votes of its own round: the consensus about
that round's samples is made anew, of all answers to the same request. A round decides about its samples as soon as a
quorum has answered it, and not before: whatever is published rests on as many answers as in a synchronous round. A
sample that a later round asked about too belongs to the newest round that decides; there a late vote counts as well,
unless its device has voted there itself. Nobody's vote counts twice, and no sample is decided twice in a round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedstill.rounds import Reopened
from fedstill.soft_labels import Ints, SoftLabels


def about(labels: SoftLabels, ids: Ints) -> SoftLabels:
    """Return what soft labels say about `ids`, absent about those that they don't name.

    Args:
        labels: soft labels about ascending samples.
        ids: samples, ascending `[samples]`.
    """
    named = np.isin(ids, labels.ids)
    places = np.searchsorted(labels.ids, ids[named])
    present = np.zeros(len(ids), dtype=np.bool_)
    present[named] = labels.present[places]
    probabilities = np.zeros((len(ids), labels.probabilities.shape[1]), dtype=np.float32)
    probabilities[named] = labels.probabilities[places]
    certainty = None
    if labels.certainty is not None:
        certainty = np.zeros(len(ids), dtype=np.float32)
        certainty[named] = labels.certainty[places]
    return SoftLabels(ids, probabilities, present, certainty, labels.class_prior)


@dataclass(frozen=True)
class Late:
    """An answer that comes after the end of the round that asked.

    Attributes:
        device: whose.
        round_number: the round that asked.
        labels: the answer.
    """

    device: int
    round_number: int
    labels: SoftLabels


@dataclass
class _Ballot:
    ids: Ints
    votes: dict[int, SoftLabels]
    decides: bool = False

    def keep(self, ids: Ints) -> None:
        self.ids = ids
        self.votes = {device: about(labels, ids) for device, labels in self.votes.items()}


class OpenBallots:
    """The votes of the rounds to which answers may still come.

    Args:
        quorum: answers with which a round decides about its samples.
    """

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._ballots: dict[int, _Ballot] = {}

    def conclude(
        self, round_number: int, ids: Ints, votes: Mapping[int, SoftLabels], late: Sequence[Late]
    ) -> tuple[dict[int, SoftLabels], tuple[Reopened[SoftLabels], ...]]:
        """Return the votes about a round's samples, and the earlier rounds that have more votes or a quorum now.

        Args:
            round_number: the round that ends.
            ids: its samples, ascending `[samples]`.
            votes: the answers to it that came in time.
            late: the answers to earlier rounds that came meanwhile.

        Returns:
            The votes by device, ascending, none below the quorum; and the earlier rounds, ascending.
        """
        self._ballots[round_number] = _Ballot(ids, dict(votes))
        new: dict[int, set[int]] = {number: set() for number in self._ballots}
        for one in late:
            if one.round_number in self._ballots:
                own = self._ballots[one.round_number]
                own.votes[one.device] = about(one.labels, own.ids)
                new[one.round_number].add(one.device)
        for number, ballot in sorted(self._ballots.items()):
            if not ballot.decides and len(ballot.votes) >= self._quorum:
                self._decide(number)
                new[number] = set(ballot.votes)
        for one in late:
            for number, ballot in self._ballots.items():
                if number > one.round_number and ballot.decides and one.device not in ballot.votes:
                    vote = about(one.labels, ballot.ids)
                    if vote.present.any():
                        ballot.votes[one.device] = vote
                        new[number].add(one.device)
        reopened = tuple(
            Reopened(number, ballot.ids, dict(sorted(ballot.votes.items())), frozenset(new[number]))
            for number, ballot in sorted(self._ballots.items())
            if number < round_number and ballot.decides and new[number] and len(ballot.ids)
        )
        own = self._ballots[round_number]
        return dict(sorted(own.votes.items())) if own.decides else {}, reopened

    def close_before(self, round_number: int) -> None:
        """Forget the rounds before this one."""
        self._ballots = {number: ballot for number, ballot in self._ballots.items() if number >= round_number}

    def _decide(self, round_number: int) -> None:
        """Let a round own its samples: no earlier one decides about them any more."""
        self._ballots[round_number].decides = True
        ids = self._ballots[round_number].ids
        for number, ballot in self._ballots.items():
            if number < round_number:
                ballot.keep(np.setdiff1d(ballot.ids, ids))

    def stored(self) -> dict[int, Any]:
        """Return all votes as tensors, for a checkpoint."""
        return {
            number: {
                "ids": torch.from_numpy(ballot.ids),
                "decides": ballot.decides,
                "votes": {device: store_labels(labels) for device, labels in ballot.votes.items()},
            }
            for number, ballot in self._ballots.items()
        }

    def restore(self, stored: Mapping[int, Any]) -> None:
        """Take over what `stored` returned."""
        self._ballots = {
            number: _Ballot(
                found["ids"].numpy(),
                {device: load_labels(labels) for device, labels in found["votes"].items()},
                found["decides"],
            )
            for number, found in stored.items()
        }


def store_labels(labels: SoftLabels) -> dict[str, Any]:
    """Return soft labels as tensors."""
    optional = {"certainty": labels.certainty, "class_prior": labels.class_prior}
    return {
        "ids": torch.from_numpy(labels.ids),
        "probabilities": torch.from_numpy(labels.probabilities),
        "present": torch.from_numpy(labels.present),
        **{name: torch.from_numpy(array) for name, array in optional.items() if array is not None},
    }


def load_labels(stored: Mapping[str, Any]) -> SoftLabels:
    """Return the soft labels that `store_labels` made tensors of."""
    optional = {name: stored[name].numpy() for name in ("certainty", "class_prior") if name in stored}
    return SoftLabels(stored["ids"].numpy(), stored["probabilities"].numpy(), stored["present"].numpy(), **optional)
