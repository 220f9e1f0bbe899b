import numpy as np
import pytest

from fedstill.cache import LabelCache
from fedstill.errors import StaleCacheError
from fedstill.packet import Decoded
from fedstill.soft_labels import soft_labels


def one_hot(*classes: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[list(classes)]


def test_a_cache_lacks_exactly_what_changed_after_its_version() -> None:
    cache = LabelCache.empty(5, 3).filled(np.array([0, 1]), one_hot(0, 1), 1).filled(np.array([1, 4]), one_hot(2, 2), 2)
    assert cache.lacking(0).ids.tolist() == [0, 1, 4]
    assert cache.lacking(1).ids.tolist() == [1, 4]
    assert cache.lacking(2).ids.tolist() == []
    assert cache.known.tolist() == [0, 1, 4]


def test_filling_leaves_the_old_cache_as_it_was() -> None:
    old = LabelCache.empty(5, 3)
    old.filled(np.array([2]), one_hot(1), 1)
    assert old.version == 0
    assert old.known.tolist() == []


def test_a_packet_that_skips_a_version_is_refused_and_names_the_held_one() -> None:
    packet = Decoded(soft_labels(np.array([1]), one_hot(1)), round_number=3, base_version=2, cache_version=3)
    with pytest.raises(StaleCacheError) as caught:
        LabelCache.empty(5, 3).after(packet)
    assert caught.value.held == 0


def test_a_packet_that_extends_the_cache_brings_its_labels_and_version() -> None:
    packet = Decoded(soft_labels(np.array([1]), one_hot(1)), round_number=3, base_version=0, cache_version=3)
    cache = LabelCache.empty(5, 3).after(packet)
    assert cache.version == 3
    assert cache.labels[1].tolist() == [0, 1, 0]
