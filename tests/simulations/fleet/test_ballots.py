import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.soft_labels import Ints, SoftLabels, soft_labels
from simulations.fleet.ballots import Late, OpenBallots, about


def ids(*samples: int) -> Ints:
    return np.array(samples, dtype=np.int64)


def vote(device: int, *samples: int) -> SoftLabels:
    """Return a vote that names its device: all probability on one class."""
    rows = np.zeros((len(samples), 8), dtype=np.float32)
    rows[:, device] = 1
    return soft_labels(ids(*samples), rows, class_prior=rows[0] if samples else None)


def voters(votes: dict[int, SoftLabels]) -> dict[int, list[int]]:
    """Return the samples that each device votes on."""
    for device, labels in votes.items():
        assert (labels.probabilities.argmax(axis=1)[labels.present] == device).all()
    return {device: labels.ids[labels.present].tolist() for device, labels in votes.items()}


def test_a_late_answer_joins_the_votes_of_its_own_round() -> None:
    ballots = OpenBallots(1)
    ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2), 1: vote(1, 1, 2)}, [])
    votes, (again,) = ballots.conclude(2, ids(3, 4), {0: vote(0, 3, 4)}, [Late(2, 1, vote(2, 1, 2))])
    assert voters(votes) == {0: [3, 4]}
    assert (again.round_number, again.ids.tolist(), set(again.new)) == (1, [1, 2], {2})
    assert voters(dict(again.votes)) == {0: [1, 2], 1: [1, 2], 2: [1, 2]}


def test_a_sample_that_was_asked_again_belongs_to_the_newer_round_and_a_late_vote_counts_there() -> None:
    ballots = OpenBallots(1)
    ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2)}, [])
    votes, (again,) = ballots.conclude(2, ids(2, 3), {0: vote(0, 2, 3)}, [Late(1, 1, vote(1, 1, 2))])
    assert voters(votes) == {0: [2, 3], 1: [2]}
    assert voters(dict(again.votes)) == {0: [1], 1: [1]}


def test_what_a_device_said_later_is_not_replaced_by_what_it_said_before() -> None:
    ballots = OpenBallots(1)
    ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2)}, [])
    votes, reopened = ballots.conclude(2, ids(1, 2), {1: vote(1, 1, 2)}, [Late(1, 1, vote(1, 1, 2))])
    assert voters(votes) == {1: [1, 2]}
    assert not reopened


def test_a_round_without_answers_takes_no_sample_from_others_until_it_has_one() -> None:
    ballots = OpenBallots(1)
    ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2)}, [])
    votes, (again,) = ballots.conclude(2, ids(2, 3), {}, [Late(1, 1, vote(1, 1, 2))])
    assert votes == {}
    assert voters(dict(again.votes)) == {0: [1, 2], 1: [1, 2]}
    _, (opened,) = ballots.conclude(3, ids(5), {0: vote(0, 5)}, [Late(3, 2, vote(3, 2, 3))])
    assert voters(dict(opened.votes)) == {3: [2, 3]}
    _, both = ballots.conclude(4, ids(6), {0: vote(0, 6)}, [Late(4, 1, vote(4, 1, 2))])
    assert [voters(dict(found.votes)) for found in both] == [{0: [1], 1: [1], 4: [1]}, {3: [2, 3], 4: [2]}]


def test_a_round_decides_with_a_quorum_and_not_before() -> None:
    ballots = OpenBallots(2)
    votes, _ = ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2)}, [])
    assert votes == {}
    votes, (opened,) = ballots.conclude(2, ids(3), {0: vote(0, 3), 1: vote(1, 3)}, [Late(2, 1, vote(2, 1, 2))])
    assert voters(votes) == {0: [3], 1: [3]}
    assert opened.new == {0, 2}
    _, (again,) = ballots.conclude(3, ids(4), {0: vote(0, 4)}, [Late(3, 1, vote(3, 1, 2))])
    assert again.new == {3}
    assert voters(dict(again.votes)) == {0: [1, 2], 2: [1, 2], 3: [1, 2]}


def test_answers_to_a_forgotten_round_change_nothing() -> None:
    ballots = OpenBallots(1)
    ballots.conclude(1, ids(1, 2), {0: vote(0, 1, 2)}, [])
    ballots.close_before(2)
    votes, reopened = ballots.conclude(2, ids(3), {0: vote(0, 3)}, [Late(1, 1, vote(1, 1, 2))])
    assert voters(votes) == {0: [3]}
    assert not reopened


def test_about_names_what_is_not_known_as_absent() -> None:
    labels = SoftLabels(
        ids(1, 4), np.eye(3, dtype=np.float32)[:2], np.array([True, False]), np.array([0.5, 0.25], dtype=np.float32)
    )
    found = about(labels, ids(0, 1, 4, 9))
    assert found.present.tolist() == [False, True, False, False]
    assert found.certainty is not None
    assert found.certainty.tolist() == [0, 0.5, 0.25, 0]
    assert found.probabilities.sum(axis=1).tolist() == [0, 1, 1, 0]


DRAW = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True).map(sorted)


@settings(deadline=None, max_examples=30)
@given(
    draws=st.lists(DRAW, min_size=3, max_size=6),
    delays=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=6, max_size=6),
    quorum=st.integers(1, 3),
)
def test_no_sample_is_decided_twice_in_a_round_and_a_restored_box_decides_the_same(
    draws: list[list[int]], delays: list[list[int]], quorum: int
) -> None:
    whole, parts = OpenBallots(quorum), OpenBallots(quorum)
    under_way: dict[int, tuple[int, int]] = {}  # device: round, arrival
    for number, drawn in enumerate(draws, start=1):
        late = [
            Late(device, asked, vote(device, *draws[asked - 1]))
            for device, (asked, at) in under_way.items()
            if at == number
        ]
        free = [device for device in range(4) if device not in under_way]
        under_way = {device: way for device, way in under_way.items() if way[1] != number}
        answers = {}
        for device in free:
            if delay := delays[number - 1][device]:
                under_way[device] = (number, number + delay)
            else:
                answers[device] = vote(device, *drawn)
        votes, reopened = whole.conclude(number, ids(*drawn), answers, late)
        same, same_reopened = parts.conclude(number, ids(*drawn), answers, late)
        decided = [drawn if votes else [], *(found.ids.tolist() for found in reopened)]
        everything = [sample for samples in decided for sample in samples]
        assert len(everything) == len(set(everything))
        assert all(found.new and len(found.ids) and len(found.votes) >= quorum for found in reopened)
        assert not votes or len(votes) >= quorum
        assert voters(votes) == voters(same)
        assert [voters(dict(found.votes)) for found in reopened] == [
            voters(dict(found.votes)) for found in same_reopened
        ]
        content = io.BytesIO()
        torch.save(parts.stored(), content)
        content.seek(0)
        parts = OpenBallots(quorum)
        parts.restore(torch.load(content, weights_only=True))
