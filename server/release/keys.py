"""The installation's own signing keys: made on first use, private files for their owner alone, the root beside them.

    root.json               the trusted root, newest version; what `fedstill release verify` and devices trust
    roots/<n>.root.json     every version of it: a device that trusts an older one follows from one to the next
    <role>-<key id>.pem     private ed25519 keys, mode 0600; root's may be kept elsewhere between rotations
    versions.json           the newest version by device class

Everything is written under a lock, and `root.json` last: a folder without it holds no keys yet.
"""

import copy
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fedstill.errors import ConfigError, ReleaseError
from fedstill.files import write_atomic, write_json
from fedstill.release.trust import Trust, encode

ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
ROOT_DAYS = 3650
ROOT, ROOTS, VERSIONS = "root.json", "roots", "versions.json"


def expiry(days: float) -> datetime:
    """Return the time in so many days, in whole seconds as TUF wants it."""
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def read_trust(path: Path) -> Trust:
    """Return trust in a root file.

    Raises:
        ConfigError: it can't be read or is no root.
    """
    try:
        return Trust.load(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"{path}: no trusted root here ({error.strerror}); name its folder with --keys, or itself with --root"
        ) from error
    except ReleaseError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class Keys:
    """A key folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @property
    def trust(self) -> Trust:
        """The newest root."""
        return read_trust(self.folder / ROOT)

    def roots(self) -> dict[str, bytes]:
        """Return every version of the root by file name, oldest first, without one whose rotation broke off."""
        versions = (f"{version}.root.json" for version in range(1, self.trust.version + 1))
        paths = (self.folder / ROOTS / name for name in versions)
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    def sign(self, role: str, metadata: Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]) -> bytes:
        """Sign metadata with the keys of a role, and return the file's content.

        Raises:
            ConfigError: too few of its private keys are here.
        """
        for signer in self._signers(self.trust.root.signed, role):
            metadata.sign(signer, append=True)
        return encode(metadata)

    def next_version(self, device_class: str) -> int:
        """Return a version for a device class that is larger than any before; no version is given twice."""
        with self._lock():
            path = self.folder / VERSIONS
            versions = json.loads(path.read_text()) if path.exists() else {}
            versions[device_class] = versions.get(device_class, 0) + 1
            write_json(path, versions)
        return int(versions[device_class])

    def rotate(self, role: str, count: int = 1, threshold: int = 1) -> Trust:
        """Replace a role's keys by new ones, and return the new root; the old keys' private files are removed.

        Args:
            role: one of `ROLES`.
            count: new keys.
            threshold: how many of them must sign.

        Raises:
            ConfigError: the numbers don't fit, or too few private keys of the root are here.
        """
        if not 1 <= threshold <= count:
            raise ConfigError(f"threshold {threshold} is not between 1 and the number of keys, {count}")
        with self._lock():
            old = self.trust
            root = copy.deepcopy(old.root.signed)
            replaced = list(root.roles[role].keyids)
            for keyid in replaced:
                root.revoke_key(keyid, role)
            new = self._add_keys(root, role, count, threshold)
            root.version += 1
            root.expires = expiry(ROOT_DAYS)
            metadata = Metadata(root)
            signers = {signer.public_key.keyid: signer for signer in self._signers(old.root.signed, Root.type)}
            signers.update({signer.public_key.keyid: signer for signer in new if role == Root.type})
            for signer in signers.values():
                metadata.sign(signer, append=True)
            trust = old.follow(encode(metadata))
            self._write_root(trust)
            for keyid in replaced:
                self._private(role, keyid).unlink(missing_ok=True)
        return trust

    def make(self) -> None:
        """Make the keys of all roles, if there is no root yet."""
        with self._lock():
            if (self.folder / ROOT).exists():
                return
            root = Root(expires=expiry(ROOT_DAYS), consistent_snapshot=False)
            metadata = Metadata(root)
            signers = {role: self._add_keys(root, role, 1, 1) for role in ROLES}
            for signer in signers[Root.type]:
                metadata.sign(signer, append=True)
            self._write_root(Trust.load(encode(metadata)))

    def _write_root(self, trust: Trust) -> None:
        write_atomic(self.folder / ROOTS / f"{trust.version}.root.json", trust.content)
        write_atomic(self.folder / ROOT, trust.content)

    def _add_keys(self, root: Root, role: str, count: int, threshold: int) -> list[CryptoSigner]:
        signers = [CryptoSigner.generate_ed25519() for _ in range(count)]
        for signer in signers:
            root.add_key(signer.public_key, role)
            path = self._private(role, signer.public_key.keyid)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(signer.private_bytes)
                file.flush()
                os.fsync(file.fileno())
        root.roles[role].threshold = threshold
        return signers

    def _private(self, role: str, keyid: str) -> Path:
        return self.folder / f"{role}-{keyid}.pem"

    def _signers(self, root: Root, role: str) -> list[CryptoSigner]:
        wanted = root.roles[role]
        paths = {keyid: self._private(role, keyid) for keyid in wanted.keyids}
        here = {keyid: path for keyid, path in paths.items() if path.exists()}
        if len(here) < wanted.threshold:
            missing = next(path for keyid, path in paths.items() if keyid not in here)
            raise ConfigError(f"{len(here)} of {wanted.threshold} private keys of {role} are here; missing: {missing}")
        signers = []
        for keyid, path in here.items():
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path}: this private key is open to others; chmod 600 it, or rotate {role}")
            private = load_pem_private_key(path.read_bytes(), None)
            signers.append(CryptoSigner(private, root.keys[keyid]))  # type: ignore[arg-type]
        return signers

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def open_keys(folder: Path) -> Keys:
    """Return the keys in `folder`, made if there are none.

    Raises:
        ConfigError: the folder can't be written, or its root is damaged.
    """
    keys = Keys(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / ROOT).exists():
            keys.make()
    except OSError as error:
        raise ConfigError(
            f"{folder}: signing keys can't be kept here: {error.strerror}; name another folder with --keys"
        ) from error
    keys.trust  # noqa: B018  (a damaged root is found now, not after the training)
    return keys
