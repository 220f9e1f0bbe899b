"""A device's samples as a stream: they come in over the rounds, change on the way, and old ones are forgotten.

Drift as the stream literature has it (Gama, Zliobaite, Bifet, Pechenizkiy and Bouchachia 2014, "A Survey on Concept
Drift Adaptation", ACM Computing Surveys 46): `classes` changes P(y), `disturbance` changes P(x | y), both at once.
What a device predicts about samples before it has learned from them is its prequential accuracy (Gama, Sebastiao and
Rodrigues 2013, "On evaluating stream learning algorithms", Machine Learning 90).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from fedstill.config import Settings
from fedstill.disturb import DISTURBANCES, disturbed
from fedstill.loading import nearest
from fedstill.rng import stream
from fedstill.soft_labels import Ints
from fedstill.tasks import Images


class StreamSettings(Settings):
    """How private samples come to a device."""

    window: int = Field(default=0, ge=0)
    """Rounds whose samples a device holds: each round brings new ones, each once, and the oldest are forgotten; 0: no
    stream, a device has all its samples from the start."""
    drift: Literal["none", "classes", "disturbance"] = "none"
    """`classes`: before the drift come samples of one half of the device's classes, then of the other half;
    `disturbance`: after it all new images are disturbed."""
    begin: float = Field(default=0.5, gt=0, lt=1)
    """Share of the rounds before the drift."""
    disturbance: str = "noise"
    """With `disturbance`, which one of `fedstill.disturb`."""
    level: float = Field(default=0.2, gt=0, le=1)
    """How strong it is; each disturbance says what that means."""

    @field_validator("disturbance")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DISTURBANCES:
            raise ValueError(f"unknown disturbance {name!r}; {nearest(name, DISTURBANCES)}")
        return name

    def last_before(self, rounds: int) -> int:
        """Return the last round before the drift."""
        return min(max(1, round(self.begin * rounds)), max(1, rounds - 1))


@dataclass(frozen=True)
class Arrived:
    """What a device holds in a round: uint8 images `[samples, channels, height, width]` and labels `[samples]`.

    Attributes:
        images: of the window, oldest first.
        labels: theirs.
        rows: which of the device's samples they are.
        fresh: how many of the last ones are new in this round.
    """

    images: Images
    labels: Ints
    rows: Ints
    fresh: int


def arrived(
    settings: StreamSettings, images: Images, labels: Ints, round_number: int, rounds: int, seed: int, device: int
) -> Arrived:
    """Return what a device holds in a round; without a stream all its samples, none of them new.

    Args:
        settings: of the stream.
        images: all samples of the device `[samples, channels, height, width]`.
        labels: their classes `[samples]`.
        round_number: from 1.
        rounds: of the whole run; the device has at least as many samples.
        seed: run seed.
        device: its number.
    """
    if not settings.window:
        return Arrived(images, labels, np.arange(len(labels), dtype=np.int64), 0)
    parts = _parts(settings, labels, rounds, stream(seed, "stream", device))
    held = range(max(1, round_number - settings.window + 1), round_number + 1)
    if not any(len(parts[number - 1]) for number in held):  # its stream is over: it keeps what came last
        held = range(max(number for number in range(1, round_number + 1) if len(parts[number - 1])), round_number + 1)
    shown = [
        _shown(settings, images[parts[number - 1]], number, rounds, stream(seed, "drift", device, number))
        for number in held
    ]
    rows = np.concatenate([parts[number - 1] for number in held])
    return Arrived(np.concatenate(shown), labels[rows], rows, len(parts[round_number - 1]))


def _parts(settings: StreamSettings, labels: Ints, rounds: int, rng: np.random.Generator) -> list[Ints]:
    """Return the samples that come in each round, as even as they go."""
    order = rng.permutation(len(labels)).astype(np.int64)
    if settings.drift != "classes":
        return np.array_split(order, rounds)
    classes, cut = rng.permutation(np.unique(labels)), settings.last_before(rounds)
    later = np.isin(labels[order], classes[: len(classes) // 2])
    return [*np.array_split(order[~later], cut), *np.array_split(order[later], rounds - cut)]


def _shown(
    settings: StreamSettings, images: Images, round_number: int, rounds: int, rng: np.random.Generator
) -> Images:
    if settings.drift != "disturbance" or round_number <= settings.last_before(rounds) or not len(images):
        return images
    return disturbed(images, settings.disturbance, settings.level, int(rng.integers(2**31)))
