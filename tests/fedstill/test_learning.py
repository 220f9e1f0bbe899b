from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedstill.fit import Fit
from fedstill.learning import (
    Anchor,
    accuracy,
    augmented,
    build,
    fit,
    generator,
    lent,
    logits,
    normalize,
    predict,
    restored,
    state_of,
)
from fedstill.models import ARCHITECTURES, architecture
from fedstill.tasks import Arrays, Images, Task
from simulations.sources import DIGITS, MNIST


def no_data(folder: object) -> Arrays:
    raise AssertionError("these tests bring their own images")


TASK = Task("stripes", ("rows", "columns"), (1, 8, 8), no_data)
HOW = Fit(steps=30, batch=16, learning_rate=0.05, optimizer="sgd", decay="cosine")


def stripes(count: int, seed: int) -> tuple[Images, torch.Tensor]:
    """Horizontal or vertical stripes under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    rows = np.where(np.arange(8) % 2, 200, 40)[:, None] * np.ones((1, 8), dtype=np.int64)
    images = np.stack([rows if label == 0 else rows.T for label in labels])
    noisy = np.clip(images + rng.normal(0, 25, images.shape), 0, 255).astype(np.uint8)
    return noisy[:, None], torch.from_numpy(labels)


def fitted(seed: int, how: Fit = HOW, anchor: Anchor | None = None) -> torch.nn.Module:
    model = build(ARCHITECTURES["tiny-conv-s"], TASK, seed=1)
    images, labels = stripes(64, seed=0)
    fit(model, images, labels, TASK, how, F.cross_entropy, seed, anchor)
    return model


def test_fitting_learns_and_the_same_seed_gives_the_same_weights() -> None:
    images, labels = stripes(100, seed=9)
    first, second, other = fitted(3), fitted(3), fitted(4)
    assert accuracy(first, images, labels.numpy(), TASK) > 0.95
    states = [state_of(model) for model in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_building_depends_on_its_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build(ARCHITECTURES["tiny-conv-s"], TASK, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    weights = [model.state_dict()["head.weight"] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_predictions_are_made_in_eval_mode_without_augmentation() -> None:
    model = fitted(3)
    model.train()
    images, _ = stripes(20, seed=2)
    before = state_of(model)
    alone = np.concatenate([predict(model, images[place : place + 1], TASK) for place in range(20)])
    assert np.allclose(predict(model, images, TASK), alone, atol=1e-5)
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_anchor_pulls_towards_its_own_targets() -> None:
    images, labels = stripes(64, seed=5)
    flipped = Anchor(images, 1 - labels, F.cross_entropy, weight=20.0)
    assert accuracy(fitted(3, anchor=flipped), images, labels.numpy(), TASK) < 0.5


@pytest.mark.parametrize(("flip", "shift"), [(False, 0), (False, 2), (True, 0), (True, 2)])
def test_augmentation_keeps_shape_type_and_pixel_values(flip: bool, shift: int) -> None:
    task = replace(TASK, flip=flip, shift=shift)
    images = torch.from_numpy(stripes(40, seed=1)[0])
    changed = augmented(images, task, generator(0))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, images) == (not flip and not shift)
    assert set(np.unique(changed.numpy()).tolist()) <= {0, *np.unique(images.numpy()).tolist()}


def test_flipping_alone_does_not_shift() -> None:
    images = torch.from_numpy(stripes(40, seed=1)[0])
    changed = augmented(images, replace(TASK, flip=True, shift=2), generator(0), shift=False)
    same = (changed == images).flatten(1).all(dim=1)
    mirrored = (changed == images.flip(3)).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert mirrored.any()


def test_a_shift_moves_the_whole_image() -> None:
    image = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    image[:, 0, 4, 4] = 255
    places = augmented(image, replace(TASK, shift=2), generator(0)).flatten(1).argmax(dim=1)
    rows, columns = places // 8, places % 8
    assert {*rows.tolist()} == {*columns.tolist()} == {2, 3, 4, 5, 6}


def test_normalization_uses_the_tasks_constants_only() -> None:
    task = replace(TASK, mean=(0.5,), std=(0.25,))
    black, white = np.zeros((1, 1, 8, 8), np.uint8), np.full((1, 1, 8, 8), 255, np.uint8)
    assert np.unique(normalize(black, task)).tolist() == [-2.0]
    assert np.unique(normalize(white, task)).tolist() == [2.0]


@pytest.mark.parametrize("student", ["strided-conv-m", "strided-separable-m", "pooled-grey-xl"])
def test_the_size_of_a_block_changes_no_bit_of_a_prediction(student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(architecture(student), MNIST, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 28, 28), dtype=np.uint8)
    blocked = logits(model, images, MNIST)
    monkeypatch.setattr("fedstill.learning.BLOCK_VALUES", 50 * 28 * 28)
    assert torch.equal(blocked, logits(model, images, MNIST))


def test_a_lent_model_has_the_state_asked_for_whatever_the_last_block_made_of_it() -> None:
    own = architecture("tiny-conv-s")
    states = [state_of(build(own, DIGITS, seed)) for seed in range(2)]
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    labels = torch.arange(8)
    how = Fit(2, 4, 0.1, "sgd", 0.9, 5e-4, "constant")
    for state in (*states, states[0]):
        with lent(own, DIGITS, state) as model:
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
            assert all(parameter.grad is None for parameter in model.parameters())
            fit(model, images, labels, DIGITS, how, F.cross_entropy, seed=0)
            after = state_of(model)
        anew = restored(own, DIGITS, state)
        fit(anew, images, labels, DIGITS, how, F.cross_entropy, seed=0)
        assert all(torch.equal(value, after[name]) for name, value in anew.state_dict().items())


class Counting(nn.Module):
    """Keeps more than its `state_dict`."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.head = nn.Linear(64, task.classes)
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        found: torch.Tensor = self.head(images.flatten(1))
        return found


def test_a_model_with_a_buffer_that_is_not_saved_is_built_anew_for_each_student() -> None:
    state = state_of(build(Counting, DIGITS, 0))
    for _ in range(2):
        with lent(Counting, DIGITS, state) as model:
            assert model.calls == 0
            model(torch.zeros(1, 1, 8, 8))


def test_a_model_is_never_lent_twice_at_a_time() -> None:
    own = architecture("tiny-conv-s")
    state = state_of(build(own, DIGITS, 0))
    with lent(own, DIGITS, state) as one, lent(own, DIGITS, state) as other:
        assert one is not other
