"""`python -m deploy.backup SERVER KEYS > backup.tar`: what a server must not lose, while it runs.

The databases are copied by SQLite: a copy of a file that is being written may be damaged. The archive has the folders
`server/` and `keys/`, without what belongs to processes that run. `deploy.restore` brings them back.
"""

import os
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from fedstill.errors import ConfigError

SERVER_MARK, KEYS_MARK = "server.toml", "root.json"
"""A folder without it is no server yet, or holds no keys yet."""
DATABASES = ("fleet.db", "superlink.db", "delivery/telemetry.sqlite")
BESIDE = ("", "-wal", "-shm", "-journal")
"""A database's own name, and what SQLite adds to it for the files beside it."""
PASSING = ("run", "logs", "lost+found")
RESTORING, REPLACED = "restoring-", "replaced-"
"""How folders begin in which a restore unpacks, and in which it leaves what was there."""


def belongs(name: str) -> bool:
    """Return whether what has this name, in the server's folder or in that of the keys, is part of it."""
    return name not in PASSING and not name.startswith((RESTORING, REPLACED))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _tree(folder: Path) -> Iterator[Path]:
    """Yield a folder and what belongs to it, passing over what vanishes: a run keeps its newest checkpoints alone."""
    yield folder
    for place, folders, files in os.walk(folder, onerror=_unless_gone):
        if Path(place) == folder:
            folders[:] = filter(belongs, folders)
        yield from (Path(place, name) for name in sorted((*folders, *files)))


def write(server: Path, keys: Path, out: BinaryIO) -> None:
    """Write the archive.

    Args:
        server: the server's folder.
        keys: the keys that sign releases.
        out: where it goes, from the beginning to the end.

    Raises:
        OSError: a file can't be read, or the archive not be written.
        sqlite3.Error: a database can't be copied.
    """
    left_out = {server / (name + end) for name in DATABASES for end in BESIDE}
    with tempfile.TemporaryDirectory() as place, tarfile.open(fileobj=out, mode="w|") as archive:
        for name in DATABASES:
            if (server / name).exists():
                copy = Path(place) / Path(name).name
                copy.touch(mode=0o600)
                with closing(sqlite3.connect(server / name)) as source, closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                archive.add(copy, f"server/{name}")
                copy.unlink()
        for folder, kept in ((server, Path("server")), (keys, Path("keys"))):
            for path in _tree(folder):
                if path not in left_out:
                    with suppress(FileNotFoundError):
                        archive.add(path, str(kept / path.relative_to(folder)), recursive=False)


def main() -> int:
    """Write it to standard output."""
    try:
        server, keys = (Path(name).resolve() for name in sys.argv[1:])
        if not (server / SERVER_MARK).is_file():
            raise ConfigError(f"{server}: no server here")
        if not (keys / KEYS_MARK).is_file():
            raise ConfigError(f"{keys}: no signing keys here ({KEYS_MARK}); name the folder that has them")
        write(server, keys, sys.stdout.buffer)
    except (ConfigError, OSError, ValueError, sqlite3.Error) as error:
        print(f"no backup: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
