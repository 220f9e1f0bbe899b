"""What a baseline's device keeps between rounds: its student and its last answer, the last two rounds of them."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedstill.files import write_atomic
from fedstill.learning import State
from fedstill.rounds import DeviceAnswer


@dataclass(frozen=True)
class Stored:
    """A device after a round; `kept` is what its method keeps beside student and answer."""

    round_number: int
    student: State
    answer: DeviceAnswer
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class Disk:
    """A device's folder.

    Attributes:
        folder: where its states lie.
    """

    folder: Path

    def load(self, asked: int) -> Stored | None:
        """Return the state of the asked round, or else of the newest round before it."""
        found = sorted(self.folder.glob("round-*.pt"), reverse=True)
        path = next((path for path in found if path <= self._path(asked)), None)
        if path is None:
            return None
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        reply = DeviceAnswer(stored["packet"].numpy().tobytes(), stored["metrics"])
        return Stored(stored["round"], stored["student"], reply, stored.get("kept", {}))

    def save(
        self, round_number: int, student: State, reply: DeviceAnswer, kept: Mapping[str, Any] | None = None
    ) -> None:
        """Write the state after a round, then drop all but this round's and the one before it.

        Args:
            round_number: the round.
            student: its student.
            reply: what it answered.
            kept: tensors and numbers that a method keeps beside these.
        """
        content = io.BytesIO()
        stored = {
            "round": round_number,
            "student": student,
            "packet": torch.frombuffer(bytearray(reply.packet), dtype=torch.uint8),
            "metrics": dict(reply.metrics),
            "kept": dict(kept or {}),
        }
        torch.save(stored, content)
        write_atomic(self._path(round_number), content.getvalue())
        for path in sorted(self.folder.glob("round-*.pt"))[:-2]:
            path.unlink()

    def _path(self, round_number: int) -> Path:
        return self.folder / f"round-{round_number:05d}.pt"
