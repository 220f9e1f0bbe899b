"""How fast this machine trains a student and predicts with it: with torch on one thread, as a device does in rounds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from fedstill.errors import ConfigError
from fedstill.failures import told
from fedstill.fit import Fit
from fedstill.learning import Lesson, build, logits, teach
from fedstill.models import architecture
from fedstill.rng import stream
from fedstill.tasks import Arrays, Task
from fedstill.workers import prepare_torch

STEPS = 10  # of a timed fit: its start weighs as little as in a round
PREDICTED = 500  # samples
REPEATS = 3  # timed parts at least: a median of fewer is a stray one


@dataclass(frozen=True)
class Measured:
    """Samples per second, medians of parts.

    Attributes:
        train: in optimizer steps, with augmentation.
        predict: about images that lie there.
    """

    train: float
    predict: float


def measure(student: str, shape: tuple[int, int, int], classes: int, batch: int, seconds: float) -> Measured:
    """Train and predict on random images, each for about `seconds`.

    Args:
        student: architecture.
        shape: channels, height and width of an image.
        classes: of the task.
        batch: samples of an optimizer step.
        seconds: wall time of each of both.

    Raises:
        ConfigError: there is no such architecture, or it does not go with the shape.
    """
    prepare_torch()
    task = Task("speed", tuple(map(str, range(classes))), shape, _nowhere, (0.5,) * shape[0], (0.25,) * shape[0])
    kind = architecture(student)
    try:
        model = build(kind, task, seed=0)
        rng = stream(0, "speed")
        images = rng.integers(0, 256, (max(batch, PREDICTED), *shape), dtype=np.uint8)
        targets = torch.from_numpy(rng.integers(0, classes, len(images)))
        how = Fit(STEPS, batch, learning_rate=0.01, optimizer="sgd")
        lesson = Lesson("train", images, targets, how, F.cross_entropy, seed=0)
        teach(model, replace(lesson, how=replace(how, steps=1)), task)
        found = tuple(logits(model, images[:2], task).shape)
    except Exception as error:  # a user's own architecture may raise anything
        size = "x".join(map(str, shape))
        raise ConfigError(f"{student}: does not go with images of {size}, {classes} classes: {told(error)}") from error
    if found != (2, classes):
        raise ConfigError(f"{student}: returns {found[1:]} for an image, {classes} logits are wanted")
    return Measured(
        train=_rate(lambda: teach(model, lesson, task), STEPS * batch, seconds),
        predict=_rate(lambda: logits(model, images, task), len(images), seconds),
    )


def _nowhere(folder: Path | None) -> Arrays:
    raise ConfigError("random images are no data")


def _rate(part: Callable[[], object], samples: int, seconds: float) -> float:
    part()  # the first one also finds its kernels
    until, found = monotonic() + seconds, list[float]()
    while len(found) < REPEATS or monotonic() < until:
        begin = perf_counter()
        part()
        found.append(samples / (perf_counter() - begin))
    return median(found)
