"""Disturbances: the same each time, stronger by level, and of no consequence for the images that they are made of."""

import numpy as np
import pytest

from fedstill.disturb import DISTURBANCES, OF_TEXT, disturbed, suited
from fedstill.text import encode

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


TEXTS = encode(["one two three four five six seven eight"] * 50, 8)


@pytest.mark.parametrize("name", sorted(OF_TEXT))
def test_disturbed_text_holds_only_words_that_were_there(name: str) -> None:
    words = {tuple(word) for word in TEXTS[0, :, 0].T} | {(0, 0)}
    found = disturbed(TEXTS, name, OF_TEXT[name][1][1])
    assert (found != TEXTS).any()
    assert {tuple(word) for text in found for word in text[:, 0].T} <= words
    assert (found == disturbed(TEXTS, name, OF_TEXT[name][1][1])).all()


def test_lost_words_are_as_many_as_the_level_says_and_swapped_ones_are_all_there() -> None:
    lost = (disturbed(TEXTS, "dropped words", 0.4) == 0).all(axis=1).mean()
    assert lost == pytest.approx(0.4, abs=0.1)
    order = [1, 0, 3, 2, 5, 4, 7, 6]
    assert (disturbed(TEXTS, "swapped words", 1.0) == TEXTS[..., order]).all()


def test_text_is_disturbed_as_text_and_a_picture_as_a_picture() -> None:
    assert set(suited(TEXTS.shape[1:])) == set(OF_TEXT)
    assert set(suited(IMAGES.shape[1:])) == set(DISTURBANCES)
