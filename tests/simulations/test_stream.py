"""A stream brings each sample once, in the round that the seed says, and changes when it should."""

from itertools import pairwise

import numpy as np
import pytest

from fedstill.config import parse
from fedstill.errors import ConfigError
from simulations.stream import Arrived, StreamSettings, arrived

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 1, 6, 6), dtype=np.uint8)
LABELS = np.arange(23) % 4
ROUNDS = 5


def course(settings: StreamSettings, device: int = 0, labels: np.ndarray = LABELS) -> list[Arrived]:
    return [arrived(settings, IMAGES, labels, number, ROUNDS, 7, device) for number in range(1, ROUNDS + 1)]


def fresh(found: Arrived) -> list[int]:
    return found.rows[-found.fresh :].tolist() if found.fresh else []


def test_without_a_stream_a_device_has_all_its_samples_as_they_are() -> None:
    for found in course(StreamSettings()):
        assert found.fresh == 0
        assert (found.images == IMAGES).all()
        assert (found.labels == LABELS).all()


@pytest.mark.parametrize("drift", ["none", "classes", "disturbance"])
def test_each_sample_comes_once_and_the_window_holds_the_last_rounds(drift: str) -> None:
    rounds = course(StreamSettings(window=2, drift=drift))  # type: ignore[arg-type]
    assert sorted(row for found in rounds for row in fresh(found)) == list(range(len(LABELS)))
    for before, now in pairwise(rounds):
        assert now.rows.tolist() == fresh(before) + fresh(now)
        assert (now.labels == LABELS[now.rows]).all()


def test_devices_and_seeds_have_streams_of_their_own() -> None:
    settings = StreamSettings(window=1)
    assert fresh(course(settings)[0]) == fresh(course(settings)[0])
    assert fresh(course(settings)[0]) != fresh(course(settings, device=1)[0])


def test_with_a_drift_of_classes_no_class_comes_before_and_after() -> None:
    rounds = course(StreamSettings(window=1, drift="classes", begin=0.4))
    before = {int(label) for found in rounds[:2] for label in found.labels}
    after = {int(label) for found in rounds[2:] for label in found.labels}
    assert before.isdisjoint(after)
    assert before | after == {0, 1, 2, 3}


def test_a_disturbance_begins_with_the_drift_and_images_stay_as_they_came() -> None:
    rounds = course(StreamSettings(window=3, drift="disturbance", begin=0.4, disturbance="noise", level=0.2))
    for found in rounds:
        changed = (found.images != IMAGES[found.rows]).any(axis=(1, 2, 3))
        late = np.isin(found.rows, [row for later in rounds[2:] for row in fresh(later)])
        assert (changed == late).all()
    again = {row: image for found in rounds for row, image in zip(found.rows.tolist(), found.images, strict=True)}
    for found in rounds:
        assert all((again[row] == image).all() for row, image in zip(found.rows.tolist(), found.images, strict=True))


def test_a_stream_that_is_over_leaves_what_came_last() -> None:
    only = course(StreamSettings(window=1, drift="classes"), labels=np.zeros(23, dtype=np.int64))
    assert [found.fresh > 0 for found in only] == [True, True, False, False, False]
    assert only[-1].rows.tolist() == only[1].rows.tolist()


def test_an_unknown_disturbance_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown disturbance 'nois'.*noise"):
        parse(StreamSettings, {"disturbance": "nois"}, "scenario")
