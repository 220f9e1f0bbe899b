"""Where a command that is stopped goes on, for the line that it ends with."""

import shlex
from collections.abc import Sequence
from pathlib import Path

_goes_on: tuple[str, Path, Sequence[str], str] | None = None


def resumable(command: str, marker: Path, options: Sequence[str] = (), then: str = "") -> None:
    """Note that from now on this process works in a folder that can be resumed.

    Args:
        command: of `fedstill`, that takes `--resume --out FOLDER`.
        marker: the file in the folder without which there is nothing to resume.
        options: that the result depends on and the folder does not know.
        then: what is left to do when that has ended.
    """
    global _goes_on
    _goes_on = command, marker, options, then


def hint() -> str:
    """Return how to go on, empty where nothing is there to go on with."""
    if _goes_on is None or not _goes_on[1].exists():
        return ""
    command, marker, options, then = _goes_on
    goes_on = shlex.join(["fedstill", command, "--resume", "--out", str(marker.parent), *options])
    return f"; continue with: {goes_on}{then and f', then: {then}'}"
