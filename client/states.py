"""A device's states on its disk: the last two rounds. Imports no torch.

A state that can't be read counts as not there: the device goes on from the older one or from nothing, and catches up.
"""

import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from fedstill.files import drop_unfinished, write_atomic

log = logging.getLogger("fedstill")
UNREADABLE = (OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.PickleError, zipfile.BadZipFile)
S = TypeVar("S")


class States(Generic[S]):
    """The states in a folder, a file per round.

    Args:
        folder: where they lie.
        suffix: of the files.
        read: returns the state in a file, or raises one of `UNREADABLE`.
        device: number of the device, for what is logged.
        durable: whether a state is on the disk before `save` returns.
    """

    def __init__(self, folder: Path, suffix: str, read: Callable[[Path], S], device: int, *, durable: bool) -> None:
        self._folder, self._suffix, self._read = folder, suffix, read
        self._device, self._durable = device, durable

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:05d}{self._suffix}"

    def load(self, asked: int) -> S | None:
        """Return the state of the asked round, or else of the newest round before it that can be read."""
        for path in sorted(self._folder.glob(f"round-*{self._suffix}"), reverse=True):
            if path > self._path(asked):
                continue
            try:
                return self._read(path)
            except UNREADABLE as error:
                log.warning("device %d: state %s can't be read and is passed over: %s", self._device, path, error)
        return None

    def save(self, round_number: int, content: bytes | memoryview) -> None:
        """Write the state, then drop all but this round's and the one before it.

        Later ones too: a server that was restored from a backup repeats rounds, and what was said then is not of this
        course of the run.
        """
        own = self._path(round_number)
        write_atomic(own, content, durable=self._durable)
        drop_unfinished(self._folder)
        stored_rounds = sorted(self._folder.glob(f"round-*{self._suffix}"))
        before = [path for path in stored_rounds if path < own][-1:]
        for path in stored_rounds:
            if path not in (own, *before):
                path.unlink()


def checked_zip(path: Path) -> None:
    """Verify a zip file's own checksums.

    Raises:
        ValueError: a part is damaged.
        UNREADABLE: it is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"damaged at {damaged}")
