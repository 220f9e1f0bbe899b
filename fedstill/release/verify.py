"""Verification of a release folder against a trusted root: every file in it is covered, or the release is refused.

The chain: the root's keys signed `timestamp.json`, which holds the hash of `snapshot.json`, which holds the hash of
`targets.json`, which holds the hashes of all other files. All are of the same device class and version.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import MetaFile, Snapshot, Targets, Timestamp

from fedstill.errors import ReleaseError
from fedstill.release.manifest import MANIFEST, Manifest, read_manifest
from fedstill.release.trust import DEVICE_CLASS, MAX_METADATA, Trust

TIMESTAMP, SNAPSHOT, TARGETS = "timestamp.json", "snapshot.json", "targets.json"
METADATA = (TIMESTAMP, SNAPSHOT, TARGETS)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Signed:
    """What signed metadata say about a release.

    Attributes:
        device_class: whom it is for.
        version: of the release.
        timestamp_version: of the timestamp, which is renewed more often.
        files: length in bytes and SHA-256 of each file that is no metadata.
    """

    device_class: str
    version: int
    timestamp_version: int
    files: Mapping[str, tuple[int, str]]


def digest(path: Path) -> tuple[int, str]:
    """Return length in bytes and SHA-256 of a file, which need not fit in memory."""
    length, found = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            length += len(chunk)
            found.update(chunk)
    return length, found.hexdigest()


def content_digest(content: bytes) -> tuple[int, str]:
    """Return length in bytes and SHA-256 of a file's content."""
    return len(content), hashlib.sha256(content).hexdigest()


def verify_metadata(
    trust: Trust,
    timestamp: bytes,
    snapshot: bytes,
    targets: bytes,
    now: datetime | None,
    at_least: tuple[int, int] = (0, 0),
) -> Signed:
    """Verify the metadata of a release.

    Args:
        trust: the trusted root.
        timestamp: content of `timestamp.json`.
        snapshot: content of `snapshot.json`.
        targets: content of `targets.json`.
        now: to check expiry with; None: expiry does not matter.
        at_least: versions of release and timestamp below which it is a replay of an old one.

    Raises:
        ReleaseError: it is not to be trusted.
    """
    newest = trust.accept(Timestamp, timestamp, TIMESTAMP, now)
    _check_hash(newest.signed.snapshot_meta, snapshot, SNAPSHOT)
    shot = trust.accept(Snapshot, snapshot, SNAPSHOT, now)
    listed = shot.signed.meta
    if list(listed) != [TARGETS]:
        raise ReleaseError(f"{SNAPSHOT}: lists other metadata than {TARGETS}")
    _check_hash(listed[TARGETS], targets, TARGETS)
    final = trust.accept(Targets, targets, TARGETS, now)
    if final.signed.delegations is not None:
        raise ReleaseError(f"{TARGETS}: delegates to others")
    wanted = (newest.signed.snapshot_meta.version, listed[TARGETS].version)
    if wanted != (shot.signed.version, final.signed.version) or wanted[0] != wanted[1]:
        raise ReleaseError("metadata of different versions")
    classes = {str(found.signed.unrecognized_fields[DEVICE_CLASS]) for found in (newest, shot, final)}
    if len(classes) != 1:
        raise ReleaseError(f"metadata of different device classes: {', '.join(sorted(classes))}")
    version, stamped = final.signed.version, newest.signed.version
    if version < at_least[0] or stamped < at_least[1]:
        raise ReleaseError(
            f"an old release is replayed: version {version} (timestamp {stamped}), "
            f"known already is {at_least[0]} (timestamp {at_least[1]})"
        )
    files = {}
    for name, target in final.signed.targets.items():
        if not NAME.fullmatch(name) or name in METADATA or "sha256" not in target.hashes:
            raise ReleaseError(f"{TARGETS}: lists {name!r}, which is no file of a release")
        files[name] = (target.length, target.hashes["sha256"])
    return Signed(classes.pop(), version, stamped, files)


def _check_hash(meta: MetaFile, content: bytes, name: str) -> None:
    if meta.length is None or not meta.hashes:
        raise ReleaseError(f"{name}: its hash is not signed")
    try:
        meta.verify_length_and_hashes(content)
    except LengthOrHashMismatchError as error:
        raise ReleaseError(f"{name}: not the file that was signed (or of another release)") from error


def verify_folder(
    folder: Path, trust: Trust, now: datetime | None, at_least: tuple[int, int] = (0, 0)
) -> tuple[Manifest, Signed]:
    """Verify a release folder, and return its manifest and what was signed.

    Args:
        folder: the release.
        trust: the trusted root, which never comes from the folder.
        now: to check expiry with; None: expiry does not matter.
        at_least: see `verify_metadata`.

    Raises:
        ReleaseError: a file is missing, unlisted, changed, signed by others, expired or of another release.
    """
    present = set()
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_file():
            raise ReleaseError(f"{path.name}: not a plain file")
        if path.name.endswith("root.json"):
            raise ReleaseError(f"{path.name}: a release ships no root; trust comes from the installation")
        present.add(path.name)
    for name in METADATA:
        if name not in present:
            raise ReleaseError(f"{name}: missing; this is no signed release")
    timestamp, snapshot, targets = (_read(folder / name) for name in METADATA)
    signed = verify_metadata(trust, timestamp, snapshot, targets, now, at_least)
    for name in sorted(present - {*METADATA, *signed.files}):
        raise ReleaseError(f"{name}: not part of the signed release")
    for name, expected in signed.files.items():
        if name not in present:
            raise ReleaseError(f"{name}: missing")
        if (folder / name).stat().st_size != expected[0] or digest(folder / name) != expected:
            raise ReleaseError(f"{name}: not the file that was signed")
    return _manifest(folder, signed), signed


def _read(path: Path) -> bytes:
    """Return a metadata file's content, or so much of it that it is refused as too long."""
    with path.open("rb") as file:
        return file.read(MAX_METADATA + 1)


def _manifest(folder: Path, signed: Signed) -> Manifest:
    if MANIFEST not in signed.files:
        raise ReleaseError(f"{MANIFEST}: missing")
    manifest = read_manifest((folder / MANIFEST).read_bytes())
    if (manifest.device_class, manifest.version) != (signed.device_class, signed.version):
        raise ReleaseError(f"{MANIFEST}: of another device class or version than the metadata")
    models = {name: (file.bytes, file.sha256) for name, file in manifest.files.items()}
    if models != {name: facts for name, facts in signed.files.items() if name != MANIFEST}:
        raise ReleaseError(f"{MANIFEST}: lists other files than {TARGETS}")
    if not {manifest.artifact, *manifest.self_test.expected} <= set(models):
        raise ReleaseError(f"{MANIFEST}: names a model that it does not list")
    return manifest
