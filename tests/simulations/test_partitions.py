import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.errors import DataError
from simulations.partitions import PARTITIONS, dirichlet, natural, quantity, shards

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


@pytest.mark.parametrize("rule", sorted(PARTITIONS))
@given(devices=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_every_sample_goes_to_exactly_one_device(rule: str, devices: int, seed: int) -> None:
    parts = PARTITIONS[rule](LABELS, devices, 1.0, 5, np.random.default_rng(seed))
    assert len(parts) == devices
    assert sorted(np.concatenate(parts).tolist()) == list(range(2000))
    assert min(len(part) for part in parts) >= 5


def test_a_small_alpha_skews_labels_more_than_a_large_one() -> None:
    def skew(alpha: float) -> float:
        parts = dirichlet(LABELS, 10, alpha, 1, np.random.default_rng(0))
        return float(np.mean([np.bincount(LABELS[part], minlength=10).max() / len(part) for part in parts]))

    assert skew(0.1) > skew(100) + 0.3


@pytest.mark.parametrize("rule", sorted(PARTITIONS))
def test_too_few_samples_for_the_devices_is_an_error_that_says_what_to_do(rule: str) -> None:
    with pytest.raises(DataError, match="too few for 500 devices"):
        PARTITIONS[rule](LABELS, 500, 1.0, 5, np.random.default_rng(0))


def test_an_impossible_skew_gives_up_with_a_clear_error() -> None:
    with pytest.raises(DataError, match="no Dirichlet split"):
        dirichlet(LABELS, 100, 0.001, 15, np.random.default_rng(0))


def test_with_very_many_devices_each_still_has_its_least_and_no_sample_is_lost() -> None:
    parts = dirichlet(LABELS, 150, 0.3, 5, np.random.default_rng(0))
    assert min(len(part) for part in parts) == 5
    assert sorted(np.concatenate(parts).tolist()) == list(range(2000))
    assert max(len(np.unique(LABELS[part])) for part in parts) > 1


def test_one_class_gives_each_device_one_class_and_shares_classes_among_more_devices() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 90)
    parts = PARTITIONS["one-class"](labels, 5, 1.0, 1, np.random.default_rng(1))
    assert [np.unique(labels[part]).tolist() for part in parts] == [[0], [1], [2], [0], [1]]
    assert abs(len(parts[0]) - len(parts[3])) <= 1


def test_shards_give_each_device_few_classes_and_equally_many_samples() -> None:
    parts = shards(LABELS, 20, 1.0, 5, np.random.default_rng(0), per_device=2)
    assert max(len(np.unique(LABELS[part])) for part in parts) <= 4  # a shard may lie across two classes
    assert {len(part) for part in parts} == {100}
    assert np.mean([len(np.unique(LABELS[part])) for part in parts]) < 3.5


def test_quantity_skew_makes_devices_unlike_in_size_and_alike_in_classes() -> None:
    parts = quantity(LABELS, 10, 0.3, 20, np.random.default_rng(0))
    sizes = sorted(len(part) for part in parts)
    assert sizes[0] >= 20
    assert sizes[-1] > 10 * sizes[0]
    largest = max(parts, key=len)
    assert np.bincount(LABELS[largest], minlength=10).max() < 0.2 * len(largest)


def test_whole_groups_go_to_one_device_and_sizes_are_level() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 2000)
    parts = natural(groups, 8, 10)
    assert sorted(np.concatenate(parts).tolist()) == list(range(2000))
    owners = [set(groups[part].tolist()) for part in parts]
    assert sum(len(own) for own in owners) == 40
    assert max(len(part) for part in parts) < 1.3 * min(len(part) for part in parts)


@pytest.mark.parametrize(("devices", "least", "reason"), [(41, 1, "too few for 41"), (40, 100, "give a device")])
def test_groups_that_can_not_be_dealt_are_told(devices: int, least: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        natural(np.repeat(np.arange(40), 50), devices, least)
