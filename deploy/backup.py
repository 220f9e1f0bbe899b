"""`python -m deploy.backup SERVER KEYS > backup.tar`: what a server must not lose, while it runs.

The databases are copied by SQLite: a copy of a file that is being written may be damaged. The archive has the folders
`server/` and `keys/`, without what belongs to processes that run.
"""

import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

DATABASES = ("fleet.db", "superlink.db", "delivery/telemetry.sqlite")
BESIDE = ("", "-wal", "-shm", "-journal")
"""A database's own name, and what SQLite adds to it for the files beside it."""
PASSING = ("run", "logs")


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
        for folder, kept in ((server, "server"), (keys, "keys")):
            for path in sorted(folder.rglob("*")):
                below = path.relative_to(folder)
                if path not in left_out and not (kept == "server" and below.parts[0] in PASSING):
                    with suppress(FileNotFoundError):  # a run keeps its newest checkpoints alone
                        archive.add(path, f"{kept}/{below}", recursive=False)


def main() -> int:
    """Write it to standard output."""
    try:
        server, keys = map(Path, sys.argv[1:])
        if not (server / "server.toml").is_file():
            raise OSError(f"{server}: no server here")
        write(server, keys, sys.stdout.buffer)
    except (OSError, ValueError, sqlite3.Error) as error:
        print(f"no backup: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
