"""A softmax head on fixed features, taught in NumPy with the losses and optimizers of `fedstill.losses` and torch.

The head H maps features f, a one after the last, to logits z = f H. Losses, with p the softmax of what stands in the
brackets, and their gradients by z:

    digest   T^2 KL(t_T || p(z / T))                T (p(z / T) - t_T)       (Hinton et al. 2015, arXiv 1503.02531)
    revisit  cross-entropy of p(z + tau log prior)  p(z + tau log prior) - y (Menon et al. 2021, arXiv 2007.07314)

Both are convex in H. Their curvature is at most half the mean squared length of a feature vector (Boehning 1992,
"Multinomial logistic regression algorithm"), so plain gradient descent with a smaller step than one over that can't
diverge (Nesterov 2004): a learning rate that was chosen for a network is cut to it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedstill.fit import Fit
from fedstill.soft_labels import Floats, Ints

SMALLEST = 1e-8  # of a probability whose logarithm is taken, as in fedstill.losses


def softmax(logits: Floats) -> Floats:
    """Return the softmax of each row `[samples, classes]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: Floats = powers / powers.sum(axis=1, keepdims=True)
    return rows


class Gradient(Protocol):
    """The gradient of a loss."""

    def __call__(self, logits: Floats, rows: Ints) -> Floats:
        """Return the gradient by the logits of the loss about those samples of a lesson, times the batch's size."""


@dataclass(frozen=True)
class Distillation:
    """The digest's loss.

    Attributes:
        labels: soft labels t `[samples, classes]`.
        temperature: T.
    """

    labels: Floats
    temperature: float

    def __call__(self, logits: Floats, rows: Ints) -> Floats:
        """Return the gradient."""
        target = self.labels[rows]
        if self.temperature != 1:
            target = softmax(np.asarray(np.log(np.maximum(target, SMALLEST)) / self.temperature, dtype=np.float32))
        gradient: Floats = self.temperature * (softmax(logits / self.temperature) - target)
        return gradient


@dataclass(frozen=True)
class LogitAdjusted:
    """The revisit's loss.

    Attributes:
        labels: classes y `[samples]`.
        shift: tau log prior `[classes]`.
    """

    labels: Ints
    shift: Floats

    def __call__(self, logits: Floats, rows: Ints) -> Floats:
        """Return the gradient."""
        gradient = softmax(logits + self.shift)
        gradient[np.arange(len(rows)), self.labels[rows]] -= 1
        return gradient


@dataclass(frozen=True)
class Part:
    """Samples and their loss.

    Attributes:
        features: a one after the last `[samples, width + 1]`.
        gradient: of the loss about them.
        weight: of the loss.
    """

    features: Floats
    gradient: Gradient
    weight: float = 1.0


def teach(head: Floats, parts: tuple[Part, ...], how: Fit, rng: np.random.Generator) -> Floats:
    """Return the head after a fit.

    Args:
        head: before `[width + 1, classes]`.
        parts: whose losses are added in each step, on a batch of each.
        how: steps and optimizer; features are not augmented.
        rng: of the batches.
    """
    curvature = sum(part.weight * float((part.features**2).sum(axis=1).mean()) / 2 for part in parts)
    most = 1 / curvature if how.optimizer == "sgd" else math.inf
    batches = [_batches(len(part.features), how.batch, rng) for part in parts]
    head = head.astype(np.float32)
    optimizer = _Sgd(how) if how.optimizer == "sgd" else _AdamW(how)
    for step in range(how.steps):
        gradient = np.zeros_like(head)
        for part, own in zip(parts, batches, strict=True):
            rows = next(own)
            features = part.features[rows]
            gradient += part.weight / len(rows) * (features.T @ part.gradient(features @ head, rows))
        rate = how.learning_rate
        if how.decay == "cosine":
            rate *= (1 + math.cos(math.pi * step / how.steps)) / 2
        head = optimizer.after(head, gradient, min(rate, most))
    return head


class _Sgd:
    """`torch.optim.SGD` with Nesterov's momentum."""

    def __init__(self, how: Fit) -> None:
        self._how = how
        self._momentum: Floats | None = None

    def after(self, head: Floats, gradient: Floats, rate: float) -> Floats:
        gradient = gradient + self._how.weight_decay * head
        if self._how.momentum:
            before = self._momentum
            self._momentum = gradient if before is None else self._how.momentum * before + gradient
            gradient = gradient + self._how.momentum * self._momentum
        return np.asarray(head - rate * gradient, dtype=np.float32)


class _AdamW:
    """`torch.optim.AdamW` with its default betas (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    def __init__(self, how: Fit) -> None:
        self._how = how
        self._mean: Floats | float = 0.0
        self._square: Floats | float = 0.0
        self._step = 0

    def after(self, head: Floats, gradient: Floats, rate: float) -> Floats:
        self._step += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient**2
        mean = self._mean / (1 - 0.9**self._step)
        square = self._square / (1 - 0.999**self._step)
        moved = head * (1 - rate * self._how.weight_decay) - rate * mean / (np.sqrt(square) + 1e-8)
        return np.asarray(moved, dtype=np.float32)


def _batches(samples: int, batch: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield batches of shuffled rows for ever; a rest smaller than half a batch is left to the next shuffle."""
    size = min(batch, samples)
    while True:
        order = rng.permutation(samples)
        for start in range(0, samples, size):
            rows = order[start : start + size]
            if len(rows) * 2 >= size:
                yield rows
