from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.privacy import Candidates, Trial, auc, bait, curve, figures, hits_at, scores, table
from fedstill.soft_labels import SoftLabels, soft_labels
from simulations.scenario import Scenario


@given(seed=st.integers(0, 2**32 - 1))
def test_the_area_is_the_chance_that_a_member_scores_above_another_and_ties_count_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members, others = rng.integers(0, 5, 7).astype(float), rng.integers(0, 5, 9).astype(float)
    weights = rng.random(9) + 0.1
    above = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    expected = (above.mean(axis=0) * weights).sum() / weights.sum()
    assert auc(*curve(members, others, weights)) == pytest.approx(expected)


def test_a_rate_is_held_by_whole_groups_of_equal_scores() -> None:
    found = curve(np.array([3.0, 2.0, 2.0, 1.0]), np.array([2.0, 1.0, 0.0, 0.0]), np.ones(4))
    assert hits_at(*found, 0.0) == 0.25
    assert hits_at(*found, 0.24) == 0.25
    assert hits_at(*found, 0.25) == 0.75
    assert hits_at(*found, 1.0) == 1


LABELS = np.array([0, 1, 0, 1])


def said(
    rows: list[list[float]], present: list[bool] | None = None, certainty: list[float] | None = None
) -> SoftLabels:
    return soft_labels(
        np.arange(len(rows)),
        np.array(rows, np.float32),
        present=None if present is None else np.array(present),
        certainty=None if certainty is None else np.array(certainty, np.float32),
    )


def test_what_a_device_knows_better_than_the_others_scores_highest_when_calibrated() -> None:
    easy, hard = [[0.95, 0.05], [0.4, 0.6]], [[0.96, 0.04], [0.1, 0.9]]
    found = scores({0: [said(hard)], 1: [said(easy)], 2: [said(easy)]}, LABELS)
    assert found["label"][0, 0] > found["label"][0, 1]
    assert found["calibrated"][0, 1] > found["calibrated"][0, 0] + 1
    assert set(found) == {"label", "confidence", "calibrated"}
    assert np.isnan(found["label"][:, 2:]).all()  # never asked


def test_certainty_and_silence_are_attacked_where_there_are_any() -> None:
    rows = [[0.9, 0.1]] * 4
    one = said(rows, [True, True, False, False], [0.2, 0.9, 0.1, 0.1])
    two = said(rows, [True, False, False, False], [0.4, 0.1, 0.1, 0.1])
    found = scores({0: [one, two], 1: [one, one]}, LABELS)
    assert np.allclose(found["certainty"][0], [0.3, 0.5, 0.1, 0.1])
    assert found["speech"][0].tolist() == [1, 0.5, 0, 0]
    assert found["label"][0, 3] < found["label"][:, :2].min()


def test_members_are_compared_with_others_of_their_classes_in_the_same_shares() -> None:
    labels = np.array([0, 0, 0, 1, 2, 0, 1, 1, 2])
    candidates = Candidates(labels, members={0: np.array([5, 6, 7])}, others=np.arange(5))
    own, others, weights = candidates.pairs(0, np.ones(9, dtype=np.bool_))
    assert own.tolist() == [5, 6, 7]
    assert others.tolist() == [0, 1, 2, 3]
    assert np.allclose(weights, [1 / 3, 1 / 3, 1 / 3, 2])
    own, others, _ = candidates.pairs(0, np.arange(9) != 3)  # no other of class 1 was asked about
    assert (own.tolist(), others.tolist()) == ([5], [0, 1, 2])


def test_the_bait_is_a_copy_of_private_samples_beside_samples_that_nobody_holds(
    small: Scenario, tmp_path: Path
) -> None:
    shelf, candidates = bait(small, tmp_path / "assets")
    held = {image.tobytes() for image in shelf.private.images}
    assert not any(image.tobytes() in held for image in shelf.proxy[candidates.others])
    for device, ids in candidates.members.items():
        own = shelf.of_device(device)
        classes = dict(zip((image.tobytes() for image in own.images), own.labels, strict=True))
        assert len(ids) == min(20, len(own.labels))
        assert [classes[image.tobytes()] for image in shelf.proxy[ids]] == candidates.labels[ids].tolist()


def test_the_table_has_a_line_per_attack_with_all_seeds() -> None:
    pair = (np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.ones(2))
    found = {"float16": figures([Trial(0.9, 0.8, {"label": pair}), Trial(0.8, 0.7, {"label": pair})])}
    assert found["float16"]["members"] == 4
    assert "| float16 | 85.0 ± 7.1 | 75.0 ± 7.1 | label | 0.875 ± 0.000 | 50.0 % | 50.0 % |" in table(found)
