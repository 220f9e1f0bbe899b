"""The download of a release into its slot: file by file, each under a temporary name until its hash is the signed one.

Each chunk is on its way to the disk before the next one is asked for. So a download that is interrupted, by whatever,
goes on where it was: `.<name>.part` holds the first bytes of a file and nothing else.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path

from client.updates.delivery import ANSWER, SLOWEST, Server
from fedstill.errors import UpdateError
from fedstill.files import flush, write_atomic
from fedstill.release.verify import METADATA, TARGETS, Signed, digest
from protos.delivery_pb2 import FetchRequest

ROOM = 2_000_000  # bytes that must stay free: metadata, state, reports
TRIES = 3  # in a row that may break off without a new byte

Step = Callable[[str], None]


def prepare(folder: Path, metadata: Mapping[str, bytes], signed: Signed) -> None:
    """Make a slot ready for a release: keep what an interrupted download of the same files left, nothing else.

    Args:
        folder: the slot.
        metadata: content of the metadata files by name, verified.
        signed: what they say.

    Raises:
        UpdateError: too little space on the disk.
    """
    before = folder / TARGETS
    if folder.exists() and not (before.exists() and before.read_bytes() == metadata[TARGETS]):
        shutil.rmtree(folder)
    wanted = {*METADATA, *signed.files, *(_part(folder, name).name for name in signed.files)}
    there = 0
    for path in folder.glob("*"):
        if path.is_symlink() or not path.is_file():
            raise UpdateError(f"{path}: not a plain file; remove it and try again")
        if path.name in wanted:
            there += path.stat().st_size
        else:
            path.unlink()
    needed = sum(length for length, _ in signed.files.values()) - there + ROOM
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UpdateError(
            f"{folder.parent}: version {signed.version} needs {needed / 1e6:.1f} MB of disk, {free / 1e6:.1f} MB are "
            f"free; make room and try again"
        )
    for name in reversed(METADATA):  # targets first: they say what may be gone on with
        write_atomic(folder / name, metadata[name])


def complete(folder: Path, signed: Signed, server: Server, step: Step) -> None:
    """Fetch what a prepared slot lacks.

    Args:
        folder: the slot.
        signed: what its metadata say.
        server: has the files.
        step: called at each step with its name.

    Raises:
        UpdateError: the server sends other bytes than those signed, or can't be reached; what came is kept.
        OSError: the disk is full or broken; likewise.
    """
    for name in signed.files:
        if not (folder / name).exists():
            _file(folder, name, signed, server, step)
    for place in (folder, folder.parent):  # a state on the disk must never name a slot that is not
        flush(place)


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


def _file(folder: Path, name: str, signed: Signed, server: Server, step: Step) -> None:
    part, (length, sha256) = _part(folder, name), signed.files[name]
    for _ in range(2):  # a damaged file is fetched once anew
        _bytes(part, length, lambda place: _chunks(server, signed, name, place), step)
        step(f"{name}: all bytes")
        if digest(part) == (length, sha256):
            part.replace(folder / name)
            step(f"{name}: whole")
            return
        part.unlink()
    raise UpdateError(f"{name}: arrived twice with another content than the signed one; thrown away")


def _chunks(server: Server, signed: Signed, name: str, place: int) -> Iterator[bytes]:
    request = FetchRequest(device_class=signed.device_class, version=signed.version, name=name, offset=place)
    return server.fetch(request, signed.files[name][0])


def _bytes(part: Path, length: int, fetch: Callable[[int], Iterator[bytes]], step: Step) -> None:
    broken = 0
    with part.open("ab", buffering=0) as file:
        if file.tell() > length:
            file.truncate(0)
        # Of all tries together: a server that sends byte by byte and breaks off must not hold the device for ever.
        until = time.monotonic() + TRIES * ANSWER + (length - file.seek(0, os.SEEK_END)) / SLOWEST
        while (place := file.seek(0, os.SEEK_END)) < length:
            reason = f"{part.name}: the server ends it after {place} of {length} bytes"
            try:
                for data in fetch(place):
                    _write(file, data)
                    broken = 0
                    step(f"{part.name}: chunk")
            except UpdateError as error:
                reason = str(error)
            broken += 1
            if (broken >= TRIES or time.monotonic() > until) and file.tell() < length:
                raise UpdateError(reason)
        os.fsync(file.fileno())


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
