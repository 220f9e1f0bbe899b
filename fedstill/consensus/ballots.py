"""A round's soft labels on disk, for rounds with more devices than fit memory: no row is held but the one in use."""

import errno
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedstill.soft_labels import Floats, Ints, SoftLabels


def without(votes: Mapping[int, SoftLabels], devices: Iterable[int]) -> Mapping[int, SoftLabels]:
    """Return votes without those of some devices: a copy, but of ballots, which are too many for memory."""
    left = votes if isinstance(votes, Ballots) else dict(votes)
    for device in devices:
        del left[device]
    return left


class Ballots(MutableMapping[int, SoftLabels]):
    """Soft labels by device, ascending; their probabilities lie in a file that is gone with its process.

    Args:
        samples: of each device's soft labels.
        classes: likewise.
        folder: where the file lies; it should be on a disk, not in memory.
    """

    def __init__(self, samples: int, classes: int, folder: Path) -> None:
        self._shape = (samples, classes)
        self._file, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        weakref.finalize(self, os.close, self._file)
        self._heads: dict[int, SoftLabels] = {}
        self._places: dict[int, int] = {}

    def __setitem__(self, device: int, labels: SoftLabels) -> None:
        rows = np.ascontiguousarray(labels.probabilities, dtype=np.float32)
        if rows.shape != self._shape:
            raise ValueError(f"soft labels of {rows.shape}, expected {self._shape}")
        place = self._places.setdefault(device, len(self._places))
        if os.pwrite(self._file, rows.tobytes(), place * rows.nbytes) != rows.nbytes:
            raise OSError(errno.ENOSPC, "no room for a round's votes")
        self._heads[device] = replace(labels, probabilities=np.zeros((0, self._shape[1]), dtype=np.float32))

    def __getitem__(self, device: int) -> SoftLabels:
        return replace(self._heads[device], probabilities=self._read(device, 0, self._shape[0]))

    def __delitem__(self, device: int) -> None:
        del self._heads[device]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._heads))

    def __len__(self) -> int:
        return len(self._heads)

    def heads(self) -> list[SoftLabels]:
        """Return all that is in memory: soft labels without their probabilities, in the order of the devices."""
        return [self._heads[device] for device in self]

    def rows(self) -> "DiskRows":
        """Return the probabilities as rules take them."""
        return DiskRows(self, list(self), None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Devices, samples, classes."""
        return len(self), *self._shape

    def _read(self, device: int, start: int, stop: int) -> Floats:
        """Return the probabilities about some samples `[stop - start, classes]`."""
        samples, classes = self._shape
        width = 4 * classes
        offset = (self._places[device] * samples + start) * width
        content = bytearray((stop - start) * width)
        got = os.preadv(self._file, [content], offset)
        if got != len(content):
            raise OSError(f"the file of a round's votes ends early: {got} of {len(content)} bytes")
        return np.frombuffer(content, dtype=np.float32).reshape(-1, classes)


class DiskRows:
    """Probabilities `[devices, samples, classes]`, read when asked for: by device, or of all about a slice of samples.

    Args:
        ballots: where they lie.
        devices: whose.
        samples: which; None: all.
    """

    def __init__(self, ballots: Ballots, devices: list[int], samples: Ints | None) -> None:
        self._ballots = ballots
        self._devices = devices
        self._samples = samples

    @property
    def shape(self) -> tuple[int, ...]:
        """Devices, samples, classes."""
        _, samples, classes = self._ballots.shape
        return len(self._devices), samples if self._samples is None else len(self._samples), classes

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Floats]:
        for device in self._devices:
            rows = self._ballots[device].probabilities
            yield rows if self._samples is None else rows[self._samples]

    def __getitem__(self, key: Any) -> Floats:
        """Return the rows of one device, or those about a slice of samples of all devices."""
        if not isinstance(key, tuple):
            rows = self._ballots[self._devices[key]].probabilities
            return rows if self._samples is None else rows[self._samples]
        everyone, part = key
        start, stop, step = part.indices(self.shape[1])
        if everyone != slice(None) or step != 1 or self._samples is not None:
            return np.asarray(self)[key]
        return np.stack([self._ballots._read(device, start, stop) for device in self._devices])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """Return all of it in memory, for a rule that can't do with less."""
        return np.stack(list(self)).astype(dtype or np.float32, copy=False)

    def about(self, samples: Ints) -> "DiskRows":
        """Return the rows about some of the samples."""
        chosen = samples if self._samples is None else self._samples[samples]
        return DiskRows(self._ballots, self._devices, chosen)
