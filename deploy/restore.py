"""`python -m deploy.restore SERVER KEYS < backup.tar`: a server and its keys as they were, where nothing runs.

All that is there is set aside, not written over: what SQLite left beside a database (`-wal`) would be played onto the
restored one. Both folders may be volumes, which can't be renamed: what is in them is exchanged.
"""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from deploy.backup import DATABASES, KEYS_MARK, REPLACED, RESTORING, SERVER_MARK, belongs
from fedstill.errors import ConfigError
from fedstill.processes import sole


def restore(server: Path, keys: Path, archive: BinaryIO) -> list[Path]:
    """Put what an archive holds into both folders, and return the folders in which what was there lies now.

    Args:
        server: the server's folder.
        keys: the keys that sign releases.
        archive: what `deploy.backup` wrote.

    Raises:
        ConfigError: the server runs, a folder has something else in it, or the archive is not whole.
        OSError: a file can't be written.
    """
    places = {server: SERVER_MARK, keys: KEYS_MARK}
    for folder, mark in places.items():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _contents(folder, mark) and not (folder / mark).is_file():
            raise ConfigError(f"{folder}: something else is here ({mark} is missing); name another folder or empty it")
    with sole(server / "run" / "server.lock", f"the server in {server}"):
        for name in DATABASES:
            if _in_use(server / name):
                raise ConfigError(f"{server / name} is in use; end the server's processes first")
        # Each beside its place, on the same file system.
        with _beside(server) as unpacked, _beside(keys) as unpacked_keys:
            if subprocess.run(["tar", "-xpf", "-", "-C", unpacked], stdin=archive, check=False).returncode:
                raise ConfigError("the archive can't be unpacked; nothing was changed")
            _check(Path(unpacked))
            shutil.move(Path(unpacked, "keys"), unpacked_keys)
            os.sync()
            for folder in places:
                with suppress(PermissionError):  # a volume's own folder may be root's
                    folder.chmod(0o700)
            # The server's mark goes first and comes last: nothing starts from what is half exchanged.
            replaced = [_set_aside(folder, mark) for folder, mark in places.items()]
            _move(Path(unpacked_keys, "keys"), keys, KEYS_MARK)
            _move(Path(unpacked, "server"), server, SERVER_MARK)
            os.sync()
    return [folder for folder in replaced if folder]


def _contents(folder: Path, mark: str) -> list[Path]:
    """Return what belongs to a folder, its mark last."""
    found = (path for path in folder.iterdir() if belongs(path.name))
    return sorted(found, key=lambda path: path.name == mark)


def _in_use(database: Path) -> bool:
    """Return whether a process has a database open: in containers nobody holds the server's lock."""
    if not database.exists():
        return False
    with database.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _beside(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix=RESTORING, dir=folder)


def _check(unpacked: Path) -> None:
    for mark in (f"server/{SERVER_MARK}", f"keys/{KEYS_MARK}"):
        if not (unpacked / mark).is_file():
            raise ConfigError(f"the archive has no {mark}: it is no whole backup; nothing was changed")
    for name in DATABASES:
        path = unpacked / "server" / name
        if path.exists():
            try:
                with closing(sqlite3.connect(path)) as database:
                    ((found,), *_) = database.execute("pragma integrity_check")
            except sqlite3.Error as error:
                found = str(error)
            if found != "ok":
                raise ConfigError(f"{name} in the archive is damaged ({found}); nothing was changed")


def _set_aside(folder: Path, mark: str) -> Path | None:
    """Move what belongs to a folder into one in it, its mark first, and return that; None: nothing was there."""
    found = _contents(folder, mark)
    if not found:
        return None
    aside = Path(tempfile.mkdtemp(prefix=REPLACED, dir=folder))
    for path in reversed(found):
        path.rename(aside / path.name)
    return aside


def _move(source: Path, target: Path, mark: str) -> None:
    for path in _contents(source, mark):
        path.rename(target / path.name)


def main() -> int:
    """Restore from standard input."""
    try:
        if len(sys.argv) != 3:
            raise ConfigError("name the server's folder and that of its keys, with the archive as standard input")
        server, keys = (Path(name).resolve() for name in sys.argv[1:])
        replaced = restore(server, keys, sys.stdin.buffer)
    except (ConfigError, OSError) as error:
        print(f"no restore: {error}", file=sys.stderr)
        return 2
    print(f"restored: {server}, {keys}")
    for folder in replaced:
        print(f"what was there is in {folder}: remove it when all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
