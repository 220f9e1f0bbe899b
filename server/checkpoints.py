"""Checkpoints: one folder per finished round, whole or not there; the newest two are kept."""

import io
import shutil
from pathlib import Path
from typing import Any

import torch

from fedstill.files import drop_unfinished, write_folder
from fedstill.stored import load_tensors

STATE = "state.pt"


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, round_number: int, state: dict[str, Any]) -> None:
        """Write the state after a round (0: before the first), then drop all but the newest two."""
        content = io.BytesIO()
        torch.save(state, content)

        def fill(target: Path) -> None:
            (target / STATE).write_bytes(content.getbuffer())

        write_folder(self._path(round_number), fill)
        drop_unfinished(self._folder)
        for old in self._finished()[:-2]:
            shutil.rmtree(old)

    def exist(self) -> bool:
        """Return whether there is any."""
        return bool(self._finished())

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state, None when no round was finished.

        Raises:
            DataError: it can't be read.
        """
        finished = self._finished()
        if not finished:
            return None
        state: dict[str, Any] = load_tensors(finished[-1] / STATE)
        return state

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:05d}"

    def _finished(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("round-*") if path.is_dir())
