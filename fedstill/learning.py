"""How teacher and students learn and predict: shared loops in torch, each driven by its own random stream.

Everything here runs on one thread and takes its randomness from an explicit generator, so that the same seed gives the
same weights in any process.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstill.descent import Descent
from fedstill.failures import stage
from fedstill.fit import Fit
from fedstill.models.folding import folded
from fedstill.soft_labels import Floats, Ints
from fedstill.tasks import Images, Task

Loss = Callable[[Tensor, Tensor], Tensor]
State = dict[str, Tensor]
BLOCK_VALUES = 250_000  # of a block's input: 81 images of 3x32x32; docs/performance.md has what was measured
LENT = 8  # models that are kept to be lent

_kept: dict[Callable[[Task], nn.Module], tuple[Task, nn.Module]] = {}


def generator(seed: int) -> torch.Generator:
    """Return a torch generator with this seed."""
    return torch.Generator().manual_seed(seed)


def normalize(images: Images, task: Task) -> Tensor:
    """Scale uint8 images to float32 with the task's fixed constants `[samples, channels, height, width]`."""
    return _normalized(_pixels(images), task)


def _normalized(images: Tensor, task: Task) -> Tensor:
    mean, std = _by_channel(tuple(task.mean)), _by_channel(tuple(task.std))
    return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _by_channel(constants: tuple[float, ...]) -> Tensor:
    return torch.tensor(constants).view(1, -1, 1, 1)


def augmented(images: Tensor, task: Task, rng: torch.Generator, *, shift: bool = True) -> Tensor:
    """Shift uint8 images by up to `task.shift` pixels, filling with zeros, and mirror half where the task allows."""
    count, channels, height, width = images.shape
    if task.shift and shift:
        padded = F.pad(images, (task.shift,) * 4)
        top = torch.randint(0, 2 * task.shift + 1, (count, 1), generator=rng)
        left = torch.randint(0, 2 * task.shift + 1, (count, 1), generator=rng)
        rows = (top + torch.arange(height)).view(count, 1, height, 1)
        columns = (left + torch.arange(width)).view(count, 1, 1, width)
        if task.flip:
            mirrored = torch.rand(count, generator=rng).view(count, 1, 1, 1) < 0.5
            columns = torch.where(mirrored, columns.flip(3), columns)
        samples = torch.arange(count).view(count, 1, 1, 1)
        return padded[samples, torch.arange(channels).view(1, channels, 1, 1), rows, columns]
    if task.flip:
        mirrored = torch.rand(count, generator=rng).view(count, 1, 1, 1) < 0.5
        return torch.where(mirrored, images.flip(3), images)
    return images


def build(architecture: Callable[[Task], nn.Module], task: Task, seed: int) -> nn.Module:
    """Build a model whose initial weights depend on `seed` only, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also note a call stack for every GPU kind
        model = architecture(task)
        return model.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


def restored(architecture: Callable[[Task], nn.Module], task: Task, state: State) -> nn.Module:
    """Build the model of an architecture that has the state `state`."""
    model = build(architecture, task, seed=0)  # its initial weights are all replaced
    model.load_state_dict(state)
    return model


@contextmanager
def lent(architecture: Callable[[Task], nn.Module], task: Task, state: State) -> Iterator[nn.Module]:
    """Lend a model of an architecture that has the state `state`, for as long as the block goes on.

    To build a small student and fill it costs a tenth of its round, so the model of the last block is filled again. A
    buffer that is no part of its `state_dict` would go from one student to the next: such a model is built anew.
    """
    with stage("restore"):
        its_task, model = _kept.pop(architecture, (None, None))
        if model is None or its_task != task:
            model = build(architecture, task, seed=0)
        _fill(model, state)
    yield model
    for parameter in model.parameters():
        parameter.grad = None
    if all(name in state for name, _ in model.named_buffers()) and len(_kept) < LENT:
        _kept[architecture] = (task, model)


def _fill(model: nn.Module, state: State) -> None:
    """Do what `load_state_dict` does, in a third of its time where the state is that of such a model."""
    own = model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != tensor.shape for name, tensor in state.items()):
        model.load_state_dict(state)  # which tells what does not fit
    for name, tensor in state.items():
        own[name].copy_(tensor)


def state_of(model: nn.Module) -> State:
    """Return a copy of a model's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def parameters(model: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def block(task: Task) -> int:
    """Return how many images to predict at once: few enough that a small network's activations stay in the cache."""
    return max(16, min(256, BLOCK_VALUES // math.prod(task.input_shape)))


def blocks(images: Images, task: Task) -> Iterator[Tensor]:
    """Yield un-augmented images, normalized, in blocks to predict at once `[batch, channels, height, width]`."""
    batch = block(task)
    images = np.asarray(images)  # slices of a mapped file cost more
    for start in range(0, len(images), batch):
        yield normalize(images[start : start + batch], task)


def logits(model: nn.Module, images: Images, task: Task) -> Tensor:
    """Return logits about un-augmented images in eval mode `[samples, classes]`."""
    if not len(images):
        return torch.zeros(0, task.classes)
    return answers(model, blocks(images, task), task)


@torch.no_grad()
def answers(model: nn.Module, inputs: Iterable[Tensor], task: Task) -> Tensor:
    """Return logits about blocks of normalized images in eval mode `[samples, classes]`."""
    model.eval()
    how = folded(model)
    parts = [how(batch) for batch in inputs]
    return torch.cat(parts) if parts else torch.zeros(0, task.classes)


def predict(model: nn.Module, images: Images, task: Task) -> Floats:
    """Return class probabilities about un-augmented images in eval mode `[samples, classes]`."""
    return probabilities(logits(model, images, task))


def probabilities(logits: Tensor) -> Floats:
    """Return each row's softmax `[samples, classes]`: by columns, as torch is seven times slower by rows."""
    rows: Floats = F.softmax(logits.t(), dim=0).t().contiguous().numpy()
    return rows


def accuracy(model: nn.Module, images: Images, labels: Ints, task: Task) -> float:
    """Return the share of images whose most probable class is their label."""
    return float((logits(model, images, task).argmax(dim=1).numpy() == labels).mean())


@dataclass(frozen=True)
class Anchor:
    """A second loss in each step of a fit, on a batch of other samples.

    Attributes:
        images: uint8 `[samples, channels, height, width]`.
        targets: labels `[samples]` or soft labels `[samples, classes]`.
        loss: takes logits and the batch's targets.
        weight: of this loss beside the main one.
    """

    images: Images
    targets: Tensor
    loss: Loss
    weight: float


@dataclass(frozen=True)
class Lesson:
    """A fit that is still to do: everything but the model.

    Attributes:
        stage: its name where a failure is told.
        images: uint8 `[samples, channels, height, width]`.
        targets: labels `[samples]` or soft labels `[samples, classes]`.
        how: steps and optimizer.
        loss: takes logits and the batch's targets.
        seed: of this fit's random stream.
        anchor: a second loss in each step, from one forward pass over both batches.
    """

    stage: str
    images: Images
    targets: Tensor
    how: Fit
    loss: Loss
    seed: int
    anchor: Anchor | None = None

    def value(self, logits: Tensor, step: "Step") -> Tensor:
        """Return the loss of a step's logits `[batch, classes]`."""
        if self.anchor is None:
            return self.loss(logits, self.targets[step.rows])
        value = self.loss(logits[: len(step.rows)], self.targets[step.rows])
        other = self.anchor.loss(logits[len(step.rows) :], self.anchor.targets[step.anchor_rows])
        return value + self.anchor.weight * other


@dataclass(frozen=True)
class Step:
    """What one optimizer step sees.

    Attributes:
        inputs: normalized images, the anchor's last `[batch, channels, height, width]`.
        rows: the lesson's samples in them.
        anchor_rows: the anchor's samples in them; none without an anchor.
        rate: learning rate.
    """

    inputs: Tensor
    rows: Tensor
    anchor_rows: Tensor
    rate: float


def steps(lesson: Lesson, task: Task) -> Iterator[Step]:
    """Yield the steps of a lesson: shuffled, augmented and normalized, from the lesson's own random stream."""
    rng, how, anchor = generator(lesson.seed), lesson.how, lesson.anchor
    pixels = _pixels(lesson.images)
    anchors = None if anchor is None else _pixels(anchor.images)
    anchor_batches = iter(()) if anchors is None else _batches(len(anchors), how.batch, rng)
    anchor_rows = torch.zeros(0, dtype=torch.int64)
    for step, rows in zip(range(how.steps), _batches(len(pixels), how.batch, rng), strict=False):
        batch = pixels[rows]
        if anchors is not None:
            anchor_rows = next(anchor_batches)
            batch = torch.cat([batch, anchors[anchor_rows]])
        if how.augment != "none":
            batch = augmented(batch, task, rng, shift=how.augment == "full")
        inputs = _normalized(batch, task).contiguous(memory_format=torch.channels_last)
        yield Step(inputs, rows, anchor_rows, _rate(how, step))


def _pixels(images: Images) -> Tensor:
    """Return images as a tensor; only those mapped from a file are copied, as torch wants to be able to write."""
    return torch.from_numpy(images if images.flags.writeable else np.array(images))


def fit(
    model: nn.Module,
    images: Images,
    targets: Tensor,
    task: Task,
    how: Fit,
    loss: Loss,
    seed: int,
    anchor: Anchor | None = None,
) -> None:
    """Fit `model` in place.

    Args:
        model: what to train.
        images: uint8 `[samples, channels, height, width]`.
        targets: labels `[samples]` or soft labels `[samples, classes]`.
        task: for normalization and augmentation.
        how: steps and optimizer.
        loss: takes logits and the batch's targets.
        seed: of this fit's random stream.
        anchor: a second loss in each step, from one forward pass over both batches.
    """
    teach(model, Lesson("fit", images, targets, how, loss, seed, anchor), task)


def teach(model: nn.Module, lesson: Lesson, task: Task) -> None:
    """Fit `model` in place as a lesson says; what fails is told with the lesson's stage and the step."""
    descent = Descent(model, lesson.how)
    model.train()
    place = 0
    with stage(lesson.stage, lambda: place):
        for place, step in enumerate(steps(lesson, task), start=1):  # noqa: B007 (the stage reads it)
            value = lesson.value(model(step.inputs), step)
            descent.forget()
            value.backward()  # type: ignore[no-untyped-call]
            descent.step(step.rate)


def _rate(how: Fit, step: int) -> float:
    if how.decay == "cosine":
        return how.learning_rate * (1 + math.cos(math.pi * step / how.steps)) / 2
    return how.learning_rate


def _batches(samples: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of shuffled rows for ever; a rest smaller than half a batch is left to the next shuffle."""
    size = min(batch, samples)
    while True:
        order = torch.randperm(samples, generator=rng)
        for start in range(0, samples, size):
            rows = order[start : start + size]
            if len(rows) * 2 >= size:
                yield rows
