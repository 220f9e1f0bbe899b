"""A device's states on its disk: the last two rounds. Imports no torch.

A state that can't be read counts as not there: the device goes on from the older one or from nothing, and catches up.
"""

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fedstill.files import drop_unfinished, write_atomic

log = logging.getLogger("fedstill")
UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile)
S = TypeVar("S")


class States:
    """The states in a folder, a file per round.

    Args:
        folder: where they lie.
        suffix: of the files.
        durable: whether a state is on the disk when `save` returns; else a power failure may damage it.
    """

    def __init__(self, folder: Path, suffix: str, *, durable: bool) -> None:
        self._folder, self._suffix, self._durable = folder, suffix, durable

    def path(self, round_number: int) -> Path:
        """Return the file of a round's state."""
        return self._folder / self._name(round_number)

    def load(self, asked: int, read: Callable[[Path], S]) -> S | None:
        """Return the state of the asked round, or else of the newest round before it that can be read.

        Args:
            asked: a round.
            read: returns the state in a file, or raises one of `UNREADABLE`: it is passed over with a warning then.
        """
        newest = self._name(asked)
        for name in reversed(self._stored()):
            if name > newest:
                continue
            path = self._folder / name
            try:
                return read(path)
            except UNREADABLE as error:
                log.warning("state %s can't be read and is passed over: %s", path, error)
        return None

    def save(self, round_number: int, content: bytes) -> None:
        """Write the state, then drop all but this round's and the one before it.

        Later ones too: a server that was restored from a backup repeats rounds, and what was said then is not of this
        course of the run.
        """
        own = self._name(round_number)
        stored = self._stored()
        before = [name for name in stored if name < own][-1:]
        dropped = [self._folder / name for name in stored if name not in (own, *before)]
        # Where a power failure counts, the older state stays until this one is on the disk.
        over = dropped.pop() if dropped and not self._durable else None
        write_atomic(self._folder / own, content, durable=self._durable, over=over)
        for path in dropped:
            path.unlink()
        drop_unfinished(self._folder)

    def _name(self, round_number: int) -> str:
        return f"round-{round_number:05d}{self._suffix}"

    def _stored(self) -> list[str]:
        """Return the names of the states, older ones first; with ten thousand devices a glob each is too slow."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.startswith("round-") and name.endswith(self._suffix))


def has_state(folder: Path, round_number: int) -> bool:
    """Return whether a folder has the state of a round: that was answered, and costs nothing to answer again."""
    return any(folder.glob(f"round-{round_number:05d}.*"))


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
