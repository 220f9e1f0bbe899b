import numpy as np
import pytest
import torch
from torch.nn import functional

from client import background
from fedstill.cache import LabelCache
from fedstill.fit import Fit
from fedstill.learning import build, logits, teach
from fedstill.models import architecture
from simulations.sources import DIGITS, load_digits


def test_the_background_is_a_class_whose_logit_is_always_zero() -> None:
    logits, held = torch.tensor([[1.0, 5.0, -2.0]]), torch.tensor([True, False, True])
    joined = functional.softmax(background.with_background(logits, held), dim=1)[0]
    expected = torch.tensor([1.0, -2.0, 0.0]).softmax(0)
    assert torch.allclose(joined[[0, 2, 3]], expected)
    assert joined[1] == 0


def test_a_proxy_sample_is_background_unless_it_is_known_to_be_of_a_held_class() -> None:
    cache = LabelCache.empty(4, 3).filled(np.array([0, 1]), np.eye(3, dtype=np.float32)[[0, 2]], 2)
    ids, held = np.array([0, 1, 3]), np.array([True, True, False])
    assert background.targets(cache, ids, held, cache.known).tolist() == [0, 3, 3]
    assert background.targets(cache, ids, held, np.array([1])).tolist() == [3, 3, 3]  # the first label has expired


@pytest.fixture(scope="module")
def specialist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Certainty, predicted and true classes of a device with zeros and ones, about digits that it did not see."""
    arrays = load_digits(None)
    half = len(arrays.train_labels) // 2
    mine = np.flatnonzero(arrays.train_labels[:half] < 2)
    held = np.arange(10) < 2
    model = build(architecture("tiny-conv-s"), DIGITS, seed=0)
    lesson = background.lesson(
        (arrays.train_images[mine], arrays.train_labels[mine]),
        (arrays.train_images[half:], np.full(len(arrays.train_labels) - half, 10)),
        held,
        Fit(steps=120, batch=32, learning_rate=0.05, optimizer="sgd", decay="cosine"),
        seed=1,
    )
    teach(model, lesson, DIGITS)
    rows, certainty = background.predicted(logits(model, arrays.test_images, DIGITS), held)
    assert rows[:, 2:].max() == 0
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    return certainty, rows.argmax(axis=1), arrays.test_labels


def test_certainty_lies_between_zero_and_one_and_tells_own_digits_from_others(
    specialist: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    certainty, _, labels = specialist
    assert certainty.min() >= 0
    assert certainty.max() <= 1
    own = labels < 2
    assert np.mean(certainty[own][:, None] > certainty[~own][None]) > 0.97
    assert np.mean(certainty[~own] > 0.5) < 0.02


def test_among_its_own_digits_a_device_knows_which_is_which(
    specialist: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    certainty, predicted, labels = specialist
    sure = (labels < 2) & (certainty > 0.1)
    assert np.mean(predicted[sure] == labels[sure]) > 0.9  # two or three of some fifty, as processors round
