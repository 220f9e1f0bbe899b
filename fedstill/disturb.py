"""Disturbances of samples at fixed levels, the same ones each time: what accuracy in the field is asked about.

Pictures are made noisy, darker or less sharp; of text, which travels as codes of words (`fedstill.text`), words get
lost or change places.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fedstill.rng import stream
from fedstill.soft_labels import Floats
from fedstill.tasks import Images

GREY = 127.5  # the middle of a pixel's values
Disturbance = Callable[[Floats, float, np.random.Generator], Floats]


def noise(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise; `level` is its standard deviation as a share of the pixel range."""
    added: Floats = rng.standard_normal(images.shape, dtype=np.float32)
    return (images + 255 * level * added).astype(np.float32)


def brightness(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Brighten or darken each image; `level` is a share of the pixel range."""
    sign = rng.choice(np.array([-1, 1], dtype=np.float32), size=(len(images), 1, 1, 1))
    return (images + 255 * level * sign).astype(np.float32)


def contrast(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Take away a share `level` of the contrast."""
    return ((images - GREY) * (1 - level) + GREY).astype(np.float32)


def shift(images: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Move each image along one axis, its edge repeated; `level` is a share of the image's height or width."""
    moved = np.empty_like(images)
    for place, (image, axis, sign) in enumerate(
        zip(images, rng.integers(1, 3, len(images)), rng.choice((-1, 1), len(images)), strict=True)
    ):
        size = image.shape[axis]
        rows = np.clip(np.arange(size) - sign * max(1, round(level * size)), 0, size - 1)
        moved[place] = image.take(rows, axis)
    return moved


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


def dropped(texts: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Lose each word with a probability of `level`: its place stays empty."""
    kept = rng.random((len(texts), 1, 1, texts.shape[3])) >= level
    return (texts * kept).astype(np.float32)


def swapped(texts: Floats, level: float, rng: np.random.Generator) -> Floats:
    """Let each pair of neighbouring words change places with a probability of `level`."""
    changed = texts.copy()
    pairs = texts.shape[3] // 2 * 2
    swap = rng.random((len(texts), 1, 1, pairs // 2)) < level
    first, second = texts[..., 0:pairs:2], texts[..., 1:pairs:2]
    changed[..., 0:pairs:2] = np.where(swap, second, first)
    changed[..., 1:pairs:2] = np.where(swap, first, second)
    return changed


DISTURBANCES: dict[str, tuple[Disturbance, tuple[float, ...]]] = {
    "noise": (noise, (0.05, 0.1, 0.2)),
    "brightness": (brightness, (0.1, 0.2, 0.4)),
    "contrast": (contrast, (0.3, 0.6, 0.85)),
    "blur": (blur, (0.03, 0.06, 0.12)),
    "shift": (shift, (0.05, 0.1, 0.2)),
    "occlusion": (occlusion, (0.15, 0.3, 0.45)),
}
OF_TEXT: dict[str, tuple[Disturbance, tuple[float, ...]]] = {
    "dropped words": (dropped, (0.1, 0.2, 0.4)),
    "swapped words": (swapped, (0.25, 0.5, 1.0)),
}


def suited(shape: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """Return the disturbances, each with its levels, that suit samples of a shape `[channels, height, width]`.

    Samples one row high are text: no picture of this field is.
    """
    known = OF_TEXT if shape[1] == 1 else DISTURBANCES
    return {name: levels for name, (_, levels) in known.items()}


def disturbed(images: Images, name: str, level: float, seed: int = 0) -> Images:
    """Return disturbed images, the same ones each time `[samples, channels, height, width]`.

    Args:
        images: uint8 `[samples, channels, height, width]`.
        name: a key of `DISTURBANCES` or `OF_TEXT`.
        level: how strong; see the disturbance.
        seed: of what is random about it.
    """
    known = OF_TEXT if name in OF_TEXT else DISTURBANCES
    change, _ = known[name]
    rng = stream(seed, "disturb", name, round(1000 * level))
    return np.clip(np.rint(change(images.astype(np.float32), level, rng)), 0, 255).astype(np.uint8)
