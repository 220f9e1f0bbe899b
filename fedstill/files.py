"""Files that are either whole or not there: written beside their place, flushed, then renamed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(
    path: Path, content: bytes | memoryview, *, durable: bool = True, mode: int = 0o666, over: Path | None = None
) -> None:
    """Write `content` to `path`, which holds the old or the new content at any moment, never a part of it.

    Args:
        path: where to.
        content: what.
        durable: whether it is on the disk when this returns; else that holds for any end of the process, but after a
            power failure the file may be damaged.
        mode: its permissions, less what the process's umask takes.
        over: a file of the same folder that nobody needs any more, to write into: its room on the disk and in memory is
            there already, which is a third to a quarter of the time of a new file of some hundred kB.
    """
    if not os.path.isdir(path.parent):  # asking costs less than a folder that is there already
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if over is not None:
            over.replace(temporary)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, mode), "wb") as file:
            file.write(content)
            file.truncate()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, and that is not there yet."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def drop_unfinished(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in a folder in which nobody writes now."""
    for name in os.listdir(folder):  # a glob takes ten times as long
        if name.startswith(".") and name.endswith(".tmp"):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def keep_newest(folder: Path, newest: Path, kept: int) -> None:
    """Remove the folders in a folder but for `newest` and those that changed last, `kept` in all."""
    others = [path for path in folder.iterdir() if path.is_dir() and path != newest]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in others[kept - 1 :]:
        shutil.rmtree(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder's files, then put the folder at `path` as a whole; one that is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            flush(file)
        if not path.exists():
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush(path.parent)
