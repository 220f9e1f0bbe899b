"""Where a command that is stopped goes on, for the line that it ends with."""

import shlex
from pathlib import Path

_goes_on: tuple[str, Path] | None = None


def resumable(command: str, marker: Path) -> None:
    """Note that from now on this process works in a folder that can be resumed.

    Args:
        command: of `fedstill`, that takes `--resume --out FOLDER`.
        marker: the file in the folder without which there is nothing to resume.
    """
    global _goes_on
    _goes_on = command, marker


def hint() -> str:
    """Return how to go on, empty where nothing is there to go on with."""
    if _goes_on is None or not _goes_on[1].exists():
        return ""
    command, marker = _goes_on
    return f"; continue with: fedstill {command} --resume --out {shlex.quote(str(marker.parent))}"
