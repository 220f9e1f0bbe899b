"""Accuracy under disturbance: noise, brightness, blur and occlusion at fixed levels, on a part of the test set."""

from collections.abc import Callable

import numpy as np

from fedstill.rng import stream
from fedstill.soft_labels import Floats
from fedstill.tasks import Images

SAMPLES = 200
Disturbance = Callable[[Floats, float, np.random.Generator], Floats]


def noise(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise; `level` is its standard deviation as a share of the pixel range."""
    added: Floats = rng.standard_normal(images.shape, dtype=np.float32)
    return (images + 255 * level * added).astype(np.float32)


def brightness(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Brighten or darken each image; `level` is a share of the pixel range."""
    sign = rng.choice(np.array([-1, 1], dtype=np.float32), size=(len(images), 1, 1, 1))
    return (images + 255 * level * sign).astype(np.float32)


def blur(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Blur with a Gaussian; `level` is its standard deviation as a share of the image's height."""
    sigma = level * images.shape[2]
    reach = max(1, int(np.ceil(2 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    weights /= weights.sum()
    for axis in (2, 3):
        padding = [(0, 0)] * 4
        padding[axis] = (reach, reach)
        wide = np.pad(images, padding, mode="edge")
        size = images.shape[axis]
        parts = [wide.take(range(place, place + size), axis) * weight for place, weight in enumerate(weights)]
        images = np.sum(parts, axis=0, dtype=np.float32)
    return images


def occlusion(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Cover a grey rectangle at a random place; `level` is its share of the image's height and width."""
    count, _, height, width = images.shape
    tall, broad = max(1, round(level * height)), max(1, round(level * width))
    covered = images.copy()
    tops, lefts = rng.integers(0, height - tall + 1, count), rng.integers(0, width - broad + 1, count)
    for image, top, left in zip(covered, tops, lefts, strict=True):
        image[:, top : top + tall, left : left + broad] = 127
    return covered


DISTURBANCES: dict[str, tuple[Disturbance, tuple[float, ...]]] = {
    "noise": (noise, (0.05, 0.1, 0.2)),
    "brightness": (brightness, (0.1, 0.2, 0.4)),
    "blur": (blur, (0.03, 0.06, 0.12)),
    "occlusion": (occlusion, (0.15, 0.3, 0.45)),
}


def disturbed(images: Images, name: str, level: float) -> Images:
    """Return disturbed images, the same ones each time `[samples, channels, height, width]`."""
    change, _ = DISTURBANCES[name]
    rng = stream(0, "disturb", name, round(1000 * level))
    return np.clip(np.rint(change(images.astype(np.float32), level, rng)), 0, 255).astype(np.uint8)


def some(count: int) -> slice:
    """Return which of `count` test samples are disturbed: about `SAMPLES`, evenly spread."""
    return slice(None, None, max(1, count // SAMPLES))
