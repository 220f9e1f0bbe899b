"""Disturbances: the same each time, stronger by level, and of no consequence for the images that they are made of."""

import numpy as np
import pytest

from fedstill.disturb import DISTURBANCES, disturbed

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 10, 14), dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(DISTURBANCES))
def test_a_seed_always_gives_the_same_images_and_the_originals_stay(name: str) -> None:
    before = IMAGES.copy()
    level = DISTURBANCES[name][1][1]
    found = disturbed(IMAGES, name, level, seed=3)
    assert (found == disturbed(IMAGES, name, level, seed=3)).all()
    assert (before == IMAGES).all()
    assert found.shape == IMAGES.shape
    assert found.dtype == np.uint8
    assert (found != IMAGES).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", sorted(set(DISTURBANCES) - {"shift"}))
def test_a_higher_level_is_further_from_the_original(name: str) -> None:
    distances = [
        np.abs(disturbed(IMAGES, name, level).astype(float) - IMAGES).mean() for level in DISTURBANCES[name][1]
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize("name", ["noise", "brightness", "shift", "occlusion"])
def test_another_seed_disturbs_otherwise(name: str) -> None:
    level = DISTURBANCES[name][1][-1]
    assert (disturbed(IMAGES, name, level, seed=1) != disturbed(IMAGES, name, level, seed=2)).any()


def test_a_shift_moves_all_pixels_by_its_share_of_the_size_and_repeats_the_edge() -> None:
    image = np.arange(10, dtype=np.uint8).reshape(1, 1, 1, 10).repeat(10, axis=2)  # each row counts to nine
    rows = {tuple(disturbed(image, "shift", 0.2, seed)[0, 0, 0]) for seed in range(20)}
    assert rows == {(0, 0, *range(8)), (*range(2, 10), 9, 9), tuple(range(10))}
