"""Signing: a folder with verified models becomes a release, its metadata written from the inside out."""

import json
from collections.abc import Mapping
from pathlib import Path

from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from fedstill.errors import ReleaseError
from fedstill.files import write_atomic
from fedstill.release.manifest import MANIFEST, Description, Manifest, Parent
from fedstill.release.trust import DEVICE_CLASS, Trust
from fedstill.release.verify import METADATA, SNAPSHOT, TARGETS, TIMESTAMP, content_digest, digest, verify_folder
from server.release.keys import Keys, expiry

CONTENT_DAYS = 730  # of targets and snapshot: how long a release may be installed
TIMESTAMP_DAYS = 180  # how long it counts as the newest without being renewed


def sign_folder(folder: Path, description: Description, parent: Parent, keys: Keys) -> Manifest:
    """Make a release of the models in `folder`: write manifest and metadata, `timestamp.json` last.

    Nothing is written before all is signed: where a key is missing, a release that is signed again stays as it was.

    Args:
        folder: holds the models that the description lists.
        description: what their verification found out.
        parent: the run that they come from.
        keys: sign and number it.

    Raises:
        ReleaseError: a model is not the one that was verified.
        ConfigError: too few private keys are here.
    """
    version = keys.next_version(description.device_class)
    manifest = Manifest(**{**description.model_dump(), "version": version, "parent": parent})
    files = {name: digest(folder / name) for name in manifest.files}
    if files != {name: (file.bytes, file.sha256) for name, file in manifest.files.items()}:
        raise ReleaseError(f"{folder}: holds other models than those that were verified")
    # Limits that are not set are left out: devices of a version that knows none of them can read the rest.
    told = {**manifest.model_dump(), "budget": manifest.budget.model_dump(exclude_none=True)}
    content = (json.dumps(told, indent=2, allow_nan=False) + "\n").encode()
    files[MANIFEST] = content_digest(content)
    metadata = signed_metadata(files, manifest.device_class, version, keys)
    for name in METADATA:
        (folder / name).unlink(missing_ok=True)
    write_atomic(folder / MANIFEST, content)
    for name in reversed(METADATA):
        write_atomic(folder / name, metadata[name])
    return manifest


def signed_metadata(
    files: Mapping[str, tuple[int, str]], device_class: str, version: int, keys: Keys
) -> dict[str, bytes]:
    """Return the contents of the metadata files that vouch for files.

    Args:
        files: length in bytes and SHA-256 by name.
        device_class: whom they are for.
        version: of the release.
        keys: sign it.

    Raises:
        ConfigError: too few private keys are here.
    """
    extra = {DEVICE_CLASS: device_class}
    listed = {name: TargetFile(length, {"sha256": sha256}, name) for name, (length, sha256) in files.items()}
    targets = Metadata(
        Targets(version=version, expires=expiry(CONTENT_DAYS), targets=listed, unrecognized_fields=dict(extra))
    )
    inner = keys.sign(Targets.type, targets)
    meta = {TARGETS: MetaFile.from_data(version, inner, ["sha256"])}
    snapshot = Metadata(
        Snapshot(version=version, expires=expiry(CONTENT_DAYS), meta=meta, unrecognized_fields=dict(extra))
    )
    outer = keys.sign(Snapshot.type, snapshot)
    meta_of_snapshot = MetaFile.from_data(version, outer, ["sha256"])
    return {TIMESTAMP: timestamp(meta_of_snapshot, device_class, version, keys), SNAPSHOT: outer, TARGETS: inner}


def timestamp(snapshot: MetaFile, device_class: str, version: int, keys: Keys, days: float = TIMESTAMP_DAYS) -> bytes:
    """Return the content of a `timestamp.json`.

    Args:
        snapshot: the newest snapshot.
        device_class: whose.
        version: of the timestamp.
        keys: sign it.
        days: until it expires.
    """
    content = Timestamp(
        version=version,
        expires=expiry(days),
        snapshot_meta=snapshot,
        unrecognized_fields={DEVICE_CLASS: device_class},
    )
    return keys.sign(Timestamp.type, Metadata(content))


def sign_again(folder: Path, earlier: Trust, keys: Keys) -> Manifest:
    """Sign a release anew, as a newer version of the same models: after it expired or after its keys were replaced.

    Args:
        folder: the release.
        earlier: the root that it was signed under.
        keys: sign it now.

    Raises:
        ReleaseError: the release is not good under that root, expiry aside.
    """
    manifest, _ = verify_folder(folder, earlier, None)
    description = Description(**manifest.model_dump(exclude={"version", "parent"}))
    return sign_folder(folder, description, manifest.parent, keys)
