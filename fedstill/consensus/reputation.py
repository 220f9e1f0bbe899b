"""Class experts whose claims are checked: each device's word about a class counts by how well it proved to know it.

What the server can check with: it holds labelled samples, its guard set among them, but devices never see those and
vote on proxy samples alone. So the guard set anchors the reputation through the teacher: it judges the teacher's
updates, and tells above which confidence the teacher is right (`confidence_threshold`).

1. Informedness of device d about class y, against a reference t: how much likelier d finds y where it is y,
   J_dy = sum_x t(y|x) p_d(y|x) / sum_x t(y|x) - sum_x (1 - t(y|x)) p_d(y|x) / sum_x (1 - t(y|x)),
   Youden's J (1950, Cancer 3) with soft counts, clipped to [0, 1]. Chance has J = 0, whatever the classes' shares:
   random, shuffled, constant votes have none, and flipped ones less.
2. First against the teacher on all samples, or without a teacher against the mean of the votes, weighted by bounded
   certainty. Then, on the samples where the teacher is not sure, against the mean of the votes weighted by J so far,
   a few times over; the smaller J counts. A device that repeats the teacher's labels where the teacher is sure and lies
   where it is not is caught by this. The reference is an arithmetic mean without class shares: there no veto, and no
   claim about itself, helps a device to be its own judge.
3. Reputation lasts: r_dy = min(J_dy, m r'_dy + (1 - m) J_dy), r' that of the round before. It is lost at once and
   regained slowly. A round in which a device votes on fewer than `ENOUGH` samples whose likeliest class is y by the
   first reference proves nothing about it and y, and leaves r'.
4. The consensus is the logarithmic pool with weights c_dx (pi_d(y) + floor) r_dy, c_dx the bounded certainty. The floor
   lets those who know a class, though they hold none of it, outweigh one who claims it and knows nothing. Samples about
   which nobody speaks but devices whose reputation has proved to be nothing are not decided about.

A device's weights sum over the classes to at most one plus the floors, whatever it claims. More than half of the votes
being hostile, or a teacher that is itself wrong, is beyond this rule.
"""

from collections.abc import Callable

import numpy as np

from fedstill.consensus.averaging import outer, weighted
from fedstill.consensus.experts import log_pool
from fedstill.consensus.votes import Consensus, Votes
from fedstill.consensus.weighting import bounded
from fedstill.soft_labels import Bools, Floats, Ints

CHECKS = 3  # each is against a reference that the one before it has cleaned
CHANCE = 0.01  # reputation up to which a device has proved to know nothing about a class
ENOUGH = 5  # expected samples of a class below which a check of it would be chance


def confidence_threshold(probabilities: Floats, labels: Ints, accuracy: float) -> float:
    """Return the lowest confidence at and above which predictions of labelled samples reach an accuracy.

    Args:
        probabilities: of held-out samples `[samples, classes]`.
        labels: their classes `[samples]`.
        accuracy: to reach, in (0, 1].

    Returns:
        The threshold of the largest probability; infinity where no confidence is enough.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    last = np.append(np.diff(confidence[order]) < 0, True)  # of those with this confidence: none is told from another
    reached = np.flatnonzero(last & (np.cumsum(right) >= accuracy * np.arange(1, len(right) + 1)))
    return float(confidence[order[reached[-1]]]) if len(reached) else float("inf")


def informedness(votes: Votes, reference: Floats, seen: Callable[[int, Floats], None] | None = None) -> Floats:
    """Return J of each device and class against a reference, in [0, 1] `[devices, classes]`.

    Args:
        votes: the votes.
        reference: rows on the simplex; rows of zeros do not count `[samples, classes]`.
        seen: called with each device's place and votes `[samples, classes]` while they are in the processor's cache.
    """
    hits, said = np.empty((2, len(votes.present), reference.shape[1]), dtype=np.float32)
    for place, rows in enumerate(votes.probabilities):  # zero where absent
        confusion = rows.T @ reference
        hits[place] = confusion.diagonal()
        said[place] = confusion.sum(axis=1)
        if seen is not None:
            seen(place, rows)
    return _youden(hits, said, votes.present, reference)


def _youden(hits: Floats, said: Floats, present: Bools, reference: Floats) -> Floats:
    """Return hit rate minus false alarm rate, clipped to [0, 1] `[devices, classes]`.

    Args:
        hits: sum_x t(y|x) p_d(y|x) `[devices, classes]`.
        said: the sum of p_d(y|x) over the samples that count, hits included `[devices, classes]`.
        present: who answered about what `[devices, samples]`.
        reference: t `[samples, classes]`.
    """
    positive = present.astype(np.float32) @ reference
    negative = positive.sum(axis=1, keepdims=True) - positive
    found = hits / np.maximum(positive, 1e-6) - (said - hits) / np.maximum(negative, 1e-6)
    result: Floats = np.clip(found, 0, 1).astype(np.float32)
    return result


def remembered(now: Floats, measured: Bools, before: Floats | None, memory: float) -> Floats:
    """Return min(J, m r' + (1 - m) J): lost at once, regained slowly `[devices, classes]`.

    Args:
        now: J in this round `[devices, classes]`.
        measured: where J is more than chance; elsewhere r' stays, NaN where there is none `[devices, classes]`.
        before: r', NaN where a device has none about a class, which gets J; None: nobody has any `[devices, classes]`.
        memory: m, in [0, 1).
    """
    known = np.full_like(now, np.nan) if before is None else before
    earlier = np.where(np.isnan(known), now, known)
    found = np.minimum(now, memory * earlier + (1 - memory) * now)
    return np.where(measured, found, known).astype(np.float32)


def reputable_experts(votes: Votes, *, memory: float = 0.5, floor: float = 0.01) -> Consensus:
    """Pool the votes as this module's head says; the reputations after the round come with the consensus.

    Args:
        votes: the votes.
        memory: m, in [0, 1).
        floor: added to each class share.
    """
    claims = bounded(votes, votes.certainty)
    reference = weighted(votes, claims).labels if votes.teacher is None else votes.teacher
    doubtful: _Whole | _Part
    if votes.unsure is None or votes.unsure.all():
        anchored, doubtful = informedness(votes, reference), _Whole(votes, claims)
    elif isinstance(votes.probabilities, np.ndarray):
        doubtful = _Part(votes, claims, np.flatnonzero(votes.unsure))
        anchored = informedness(votes, reference, doubtful.keep)
    else:  # too large for memory: so may be a copy of its part
        places = np.flatnonzero(votes.unsure)
        anchored, doubtful = informedness(votes, reference), _Whole(votes.about(places), claims[:, places])
    now = anchored
    for _ in range(CHECKS):
        settled = doubtful.judged(now)
        enough = settled.sum(axis=0) >= ENOUGH
        now = np.where(enough, np.minimum(anchored, doubtful.informedness(settled)), anchored)
    measured = votes.present.astype(np.float32) @ _best(reference) >= ENOUGH
    reputation = remembered(now, measured, votes.reputation, memory)
    trusted = np.where(np.isnan(reputation), now, reputation)
    found = log_pool(votes, (votes.class_priors + np.float32(floor)) * trusted, claims)
    known = ~np.isnan(reputation)
    worthless: Bools = np.asarray(known.any(axis=1) & ~(known & (reputation > CHANCE)).any(axis=1))
    # Where all are, the reference tells nothing: about samples of one class everybody's J is zero.
    listened = votes.present if worthless.all() else votes.present[~worthless]
    heard: Bools = np.asarray(listened.any(axis=0))  # where nobody else speaks, what was known before stays
    labels: Floats = np.where(heard[:, None], found.labels, np.float32(0))
    return Consensus(labels, found.covered & heard, reputation)


def _best(reference: Floats) -> Floats:
    """Return one where a class is a sample's most probable one: of the rest, soft labels have a bit of every class."""
    best = np.zeros_like(reference)
    rows = np.flatnonzero(reference.any(axis=1))
    best[rows, reference[rows].argmax(axis=1)] = 1
    return best


class _Whole:
    """All samples, where the teacher is sure of none: checked in place, device by device.

    Args:
        votes: the votes.
        claims: bounded certainty, zero where absent `[devices, samples]`.
    """

    def __init__(self, votes: Votes, claims: Floats) -> None:
        self._votes = votes
        self._claims = claims

    def judged(self, weights: Floats) -> Floats:
        """Return the mean of the claimed votes with weights by device and class, normalized `[samples, classes]`.

        Args:
            weights: not negative `[devices, classes]`.
        """
        total = self._claims.T @ weights
        sums, spent = np.zeros((2, *total.shape), dtype=np.float32)
        for rows, own, claim in zip(self._votes.probabilities, weights, self._claims, strict=True):
            sums += np.multiply(outer(claim, own, spent), rows, out=spent)
        return _normalized(sums, total)

    def informedness(self, reference: Floats) -> Floats:
        """Return J against a reference about these samples `[devices, classes]`."""
        return informedness(self._votes, reference)


class _Part:
    """The samples of which the teacher is not sure, copied class by class: the votes bare, and times what is claimed.

    Each check weighs and compares all of them, with weights that differ by class: in this order either is a product of
    a matrix and a vector per class.

    Args:
        votes: the votes.
        claims: bounded certainty, zero where absent `[devices, samples]`.
        places: the samples that are copied `[part]`.
    """

    def __init__(self, votes: Votes, claims: Floats, places: Ints) -> None:
        devices, _, classes = votes.probabilities.shape
        self._places = places
        self._present = votes.present[:, places]
        self._claims = claims[:, places]
        self._rows, self._claimed = np.empty((2, classes, devices, len(places)), dtype=np.float32)
        self._taken = np.empty((len(places), classes), dtype=np.float32)

    def keep(self, place: int, rows: Floats) -> None:
        """Copy a device's votes `[samples, classes]`."""
        np.take(rows, self._places, axis=0, out=self._taken, mode="clip")  # the default mode would buffer `out`
        self._rows[:, place] = self._taken.T
        np.multiply(self._rows[:, place], self._claims[place], out=self._claimed[:, place])

    def judged(self, weights: Floats) -> Floats:
        """Return what `_Whole.judged` does, about the part `[part, classes]`."""
        sums = np.stack([own @ rows for own, rows in zip(weights.T, self._claimed, strict=True)], axis=1)
        return _normalized(sums, self._claims.T @ weights)

    def informedness(self, reference: Floats) -> Floats:
        """Return J against a reference about the part `[devices, classes]`."""
        counted = reference.sum(axis=1)
        sums = [  # by class, of each device: of its hits, and of all that it said
            rows @ np.stack([own, counted], axis=1) for own, rows in zip(reference.T, self._rows, strict=True)
        ]
        hits, said = np.stack(sums).transpose(2, 1, 0)
        return _youden(hits, said, self._present, reference)


def _normalized(sums: Floats, total: Floats) -> Floats:
    odds = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    norm = odds.sum(axis=1, keepdims=True)
    labels: Floats = np.divide(odds, norm, out=odds, where=norm > 0)
    return labels
