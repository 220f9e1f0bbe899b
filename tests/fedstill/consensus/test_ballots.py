from pathlib import Path

import numpy as np
import pytest

from fedstill.consensus import RULES, Votes
from fedstill.consensus.ballots import Ballots
from fedstill.soft_labels import SoftLabels, soft_labels

SAMPLES, CLASSES = 40, 5
IDS = np.arange(SAMPLES)


def labels(device: int, *, certain: bool) -> SoftLabels:
    rng = np.random.default_rng(device)
    rows = rng.dirichlet(np.ones(CLASSES), SAMPLES).astype(np.float32)
    certainty = rng.random(SAMPLES).astype(np.float32) if certain else None
    prior = rng.dirichlet(np.ones(CLASSES)).astype(np.float32)
    return soft_labels(IDS, rows, present=rng.random(SAMPLES) < 0.8, certainty=certainty, class_prior=prior)


def both(folder: Path, *, certain: bool) -> tuple[Votes, Votes]:
    """Return the same votes in memory and on disk, the latter taken in another order."""
    devices = [3, 7, 8, 20]
    memory = {device: labels(device, certain=certain) for device in devices}
    disk = Ballots(SAMPLES, CLASSES, folder)
    for device in (8, 3, 20, 7):
        disk[device] = memory[device]
    teacher = labels(99, certain=False).probabilities
    unsure = np.arange(SAMPLES) % 3 > 0
    first, second = (
        Votes.stack(IDS, each, teacher, unsure, {7: np.ones(CLASSES, dtype=np.float32)}) for each in (memory, disk)
    )
    return first, second


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_decides_the_same_from_disk(name: str, certain: bool, tmp_path: Path) -> None:
    memory, disk = both(tmp_path, certain=certain)
    assert not isinstance(disk.probabilities, np.ndarray)
    expected, found = RULES[name](memory), RULES[name](disk)
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.covered, expected.covered)
    if expected.reputation is not None and found.reputation is not None:
        assert np.array_equal(found.reputation, expected.reputation, equal_nan=True)


def test_soft_labels_come_back_as_they_were_given_and_devices_ascending(tmp_path: Path) -> None:
    disk = Ballots(SAMPLES, CLASSES, tmp_path)
    for device in (5, 2):
        disk[device] = labels(device, certain=True)
    disk[5] = labels(6, certain=True)
    assert list(disk) == [2, 5]
    assert np.array_equal(disk[5].probabilities, labels(6, certain=True).probabilities)
    assert np.array_equal(disk[2].probabilities, labels(2, certain=True).probabilities)
    assert np.array_equal(disk[2].present, labels(2, certain=True).present)


def test_a_rule_of_ones_own_may_take_it_as_an_array(tmp_path: Path) -> None:
    memory, disk = both(tmp_path, certain=False)
    assert np.array_equal(np.asarray(disk.probabilities), memory.probabilities)
    assert np.array_equal(disk.probabilities[:, ::2], np.asarray(memory.probabilities)[:, ::2])
    assert np.array_equal(disk.about(np.array([1, 4])).probabilities, np.asarray(memory.probabilities)[:, [1, 4]])
    assert np.array_equal(disk.probabilities[1], np.asarray(memory.probabilities)[1])


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    both(tmp_path, certain=True)
    assert list(tmp_path.iterdir()) == []


def test_soft_labels_of_another_shape_are_no_ballot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        Ballots(SAMPLES + 1, CLASSES, tmp_path)[0] = labels(0, certain=False)
