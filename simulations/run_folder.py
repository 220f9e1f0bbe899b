"""The run folder: claimed by one process at a time, written atomically, continued with `--resume`."""

import fcntl
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO

from fedstill.errors import RunFolderError
from fedstill.files import write_atomic
from fedstill.resuming import resumable
from server.release.home import default_folder

CONFIG, SUMMARY, ROUNDS, REPORT = "config.toml", "summary.json", "rounds.jsonl", "report.html"
SEEDS_PLAN = "seeds.toml"
LOCK = ".lock"


class Claim:
    """Holds a run folder for this process; the lock ends with the process, however it ends.

    Args:
        out: the run folder.

    Raises:
        RunFolderError: another process holds it.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = (out / LOCK).open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise RunFolderError(f"{out}: another run is working in this folder") from error

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def goes_on(command: str, marker: Path, keys: Path, then: str = "") -> None:
    """Note how a command goes on if it is stopped, with the keys where they are not the installation's own.

    Args:
        command: of `fedstill`.
        marker: the file that says that its folder can be resumed.
        keys: folder of the keys that sign.
        then: what is left to do when that has ended.
    """
    resumable(command, marker, () if keys == default_folder().resolve() else ("--keys", str(keys)), then)


def check_new(out: Path) -> None:
    """Check that a new run may use `out`.

    Raises:
        RunFolderError: it holds a run or other files already.
    """
    if out.exists() and (not out.is_dir() or any(not _unfinished(path.name) for path in out.iterdir())):
        begun = any((out / name).exists() for name in (CONFIG, SEEDS_PLAN))
        hint = "continue it with --resume, or choose another one" if begun else "choose another one"
        raise RunFolderError(f"{out}: this folder is already in use; {hint}")


def _unfinished(name: str) -> bool:
    """Say whether a file is all that a run leaves which was killed before it began."""
    return name == LOCK or (name.startswith(".") and name.endswith(".tmp"))


def check_resumable(out: Path) -> Path:
    """Return the configuration file of the run in `out`.

    Raises:
        RunFolderError: there is no run in it.
    """
    if not (out / CONFIG).is_file():
        raise RunFolderError(f"{out}: no run to resume here ({CONFIG} is missing)")
    return out / CONFIG


def write_config(out: Path, content: str) -> None:
    """Write the resolved configuration of a run."""
    write_atomic(out / CONFIG, content.encode())


def commit() -> str | None:
    """Return the commit of the code that runs, with `+dirty` for uncommitted changes; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, env=environment, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, env=environment, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")
