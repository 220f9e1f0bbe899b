"""Random streams, each derived from what it is for, never from a shared global generator."""

import zlib

import numpy as np

Key = int | str


def _words(seed: int, keys: tuple[Key, ...]) -> list[int]:
    return [seed, *(zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys)]


def stream(seed: int, *keys: Key) -> np.random.Generator:
    """Return the generator of (seed, keys), for example `stream(seed, "revisit", device, round)`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(seed, keys))))


def torch_seed(seed: int, *keys: Key) -> int:
    """Return a 63-bit seed for `torch.Generator.manual_seed`, derived like `stream`."""
    return int(np.random.SeedSequence(_words(seed, keys)).generate_state(1, np.uint64)[0] >> 1)
