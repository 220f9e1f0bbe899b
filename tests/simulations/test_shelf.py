from pathlib import Path

import numpy as np
import pytest

from fedstill.errors import DataError
from simulations.scenario import Scenario, load_scenario
from simulations.shelf import open_shelf
from simulations.sources import load_digits


def fingerprints(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_no_sample_is_in_two_parts_and_none_of_the_test_set_is_in_any(tmp_path: Path) -> None:
    scenario = load_scenario("digits")
    shelf = open_shelf(tmp_path / "assets", scenario)
    parts = [shelf.server.images, shelf.guard.images, shelf.proxy, shelf.private.images]
    arrays = load_digits(None)
    assert sum(len(part) for part in parts) == len(arrays.train_images)
    assert len(shelf.server.images) + len(shelf.guard.images) == 150
    # The digits hold no two equal images, so equal content would mean an equal sample.
    assert sum(len(fingerprints(part)) for part in parts) == len(fingerprints(arrays.train_images))
    test = fingerprints(shelf.test.images)
    assert test == fingerprints(arrays.test_images)
    assert all(not test & fingerprints(part) for part in parts)


def test_proxy_labels_are_dropped_at_load(small: Scenario, tmp_path: Path) -> None:
    open_shelf(tmp_path / "assets", small)
    names = {path.name for path in (tmp_path / "assets").iterdir()}
    assert "proxy-images.npy" in names
    assert not any("proxy" in name and "label" in name for name in names)


def test_the_split_depends_on_the_seed_alone(small: Scenario, tmp_path: Path) -> None:
    one = open_shelf(tmp_path / "one", small)
    same = open_shelf(tmp_path / "same", small)
    other = open_shelf(tmp_path / "other", small.model_copy(update={"seed": 1}))
    assert np.array_equal(one.proxy, same.proxy)
    assert all(np.array_equal(a, b) for a, b in zip(one.partition, same.partition, strict=True))
    assert not np.array_equal(one.proxy, other.proxy)


def test_a_device_gets_its_own_part_only(small: Scenario, tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path / "assets", small)
    rows = np.concatenate(shelf.partition)
    assert len(np.unique(rows)) == len(rows) == small.data.private_samples
    assert np.array_equal(shelf.of_device(2).labels, shelf.private.labels[shelf.partition[2]])


def test_a_split_that_leaves_nothing_for_devices_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    scenario = load_scenario("digits", ["data.proxy_samples=1290"])
    with pytest.raises(DataError, match="leave none for the devices"):
        open_shelf(tmp_path / "assets", scenario)
    assert list(tmp_path.iterdir()) == []


def test_more_devices_than_samples_draw_them_with_replacement_by_the_seed_alone(tmp_path: Path) -> None:
    scenario = load_scenario("digits", ["devices=300"])
    shelf, same = (open_shelf(tmp_path / name, scenario) for name in ("one", "same"))
    assert len(shelf.private.labels) < 300 * 10
    assert shelf.shared
    assert min(len(part) for part in shelf.partition) >= 10
    assert all(np.array_equal(a, b) for a, b in zip(shelf.partition, same.partition, strict=True))
    assert max(part.max() for part in shelf.partition) < len(shelf.private.labels)


def test_enough_samples_are_never_shared(small: Scenario, tmp_path: Path) -> None:
    assert not open_shelf(tmp_path / "assets", small).shared


def test_shifted_features_are_each_devices_own_and_leave_proxy_and_test_alone(small: Scenario, tmp_path: Path) -> None:
    plain = open_shelf(tmp_path / "plain", small)
    wanted = small.partition.model_copy(update={"feature_shift": 0.5})
    shifted = open_shelf(tmp_path / "shifted", small.model_copy(update={"partition": wanted}))
    means = [shifted.of_device(n).images.mean() - plain.of_device(n).images.mean() for n in range(small.devices)]
    assert len({round(float(mean)) for mean in means}) == small.devices
    assert np.array_equal(shifted.proxy, plain.proxy)
    assert np.array_equal(shifted.test.images, plain.test.images)


def test_a_task_that_knows_no_owners_has_no_natural_partition(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not say whose"):
        open_shelf(tmp_path / "assets", load_scenario("digits", ["partition.rule=natural"]))


PARTITION = """
import numpy as np
def twice(labels, devices, alpha, min_samples, rng):
    return [np.arange(10) for _ in range(devices)]
def nothing(labels, devices, alpha, min_samples, rng):
    pass
def lookup(labels, devices, alpha, min_samples, rng):
    return {}["pi5"]
def halves(labels, devices, alpha, min_samples, rng):
    return [np.array([device + 0.5]) for device in range(devices)]
def numbers(labels, devices, alpha, min_samples, rng):
    return list(range(devices))
def lists(labels, devices, alpha, min_samples, rng):
    return [list(range(device, len(labels), devices)) for device in range(devices)]
"""


def test_a_users_partition_that_hands_a_sample_out_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PARTITION)
    scenario = load_scenario("digits", [f"partition.rule='{tmp_path}/mine.py:twice'"])
    with pytest.raises(DataError, match="a sample twice"):
        open_shelf(tmp_path / "assets", scenario)


@pytest.mark.parametrize("devices", [20, 300])
@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("nothing", "nothing' gave NoneType, not the rows of each device"),
        ("lookup", "lookup' failed with KeyError: 'pi5'"),
        ("halves", "halves' gave a device something else than a list of rows"),
        ("numbers", "numbers' gave a device something else than a list of rows"),
    ],
)
def test_a_users_partition_that_fails_is_named_with_what_it_did(
    rule: str, reason: str, devices: int, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PARTITION)
    scenario = load_scenario("digits", [f"devices={devices}", f"partition.rule='{tmp_path}/mine.py:{rule}'"])
    with pytest.raises(DataError, match=reason):
        open_shelf(tmp_path / "assets", scenario)


def test_a_users_partition_may_give_lists(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PARTITION)
    shelf = open_shelf(
        tmp_path / "assets", load_scenario("digits", [f"partition.rule='{tmp_path}/mine.py:lists'", "devices=4"])
    )
    assert [part[0] for part in shelf.partition] == [0, 1, 2, 3]
