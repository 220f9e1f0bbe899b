"""What both sides of `python -m benchmarks.fleet` learn from, without torch."""

import numpy as np
from numpy.typing import NDArray

CLASSES, SIDE = 10, 28
BATCH, RATE = 20, 0.05


def images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return random images with labels; what they show makes no difference to how long the work takes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    return pixels, rng.integers(0, CLASSES, count)
