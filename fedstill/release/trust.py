"""Trust: a TUF root that somebody put there on purpose, and what its keys signed.

The roles are those of The Update Framework (Samuel, Mathewson, Cappos, Dingledine 2010, "Survivable Key Compromise in
Software Update Systems"; specification 1.0). Beyond the specification, because every byte of a release counts:

* a metadata file has exactly one form (`encode`); any other bytes of the same content are refused
* every signature in it is valid and by a key of its role, not only as many as the threshold asks for
* every role but root names the device class it is for, so that no class's metadata pass for another's
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from fedstill.errors import ReleaseError

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

MAX_METADATA = 512_000  # bytes of one metadata file
DEVICE_CLASS = "device_class"


def encode(metadata: Metadata[Any]) -> bytes:
    """Return the one form of a metadata file."""
    signatures = [
        {"keyid": keyid, "sig": signature.signature} for keyid, signature in sorted(metadata.signatures.items())
    ]
    content = {"signatures": signatures, "signed": metadata.signed.to_dict()}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def decode(kind: type[T], content: bytes, name: str) -> Metadata[T]:
    """Parse a metadata file without trusting it.

    Args:
        kind: the role's type.
        content: the file's bytes.
        name: what to call it in errors.

    Raises:
        ReleaseError: too long, not metadata of this role, or not in the form of `encode`.
    """
    if len(content) > MAX_METADATA:
        raise ReleaseError(f"{name}: longer than {MAX_METADATA} bytes")
    try:
        metadata: Metadata[T] = Metadata.from_bytes(content)
        same = encode(metadata) == content
    except (DeserializationError, TypeError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{name}: damaged, not TUF metadata") from error
    if metadata.signed.type != kind.type:
        raise ReleaseError(f"{name}: metadata of the role {metadata.signed.type!r}, expected {kind.type!r}")
    if not same:
        raise ReleaseError(f"{name}: changed after it was signed (not in the form in which metadata are written)")
    return metadata


def _check_signatures(root: Root, role: str, metadata: Metadata[Any], name: str, others: tuple[str, ...] = ()) -> None:
    """Check that each signature is valid and by a key of the role, and that they reach its threshold.

    Args:
        root: names the role's keys.
        role: its name.
        metadata: what is signed.
        name: what to call it in errors.
        others: ids of keys whose signatures are checked elsewhere.
    """
    keys, threshold = root.roles[role].keyids, root.roles[role].threshold
    try:
        payload = metadata.signed_bytes
    except SerializationError as error:
        raise ReleaseError(f"{name}: damaged, not TUF metadata") from error
    valid = 0
    for keyid, signature in metadata.signatures.items():
        if keyid not in keys:
            if keyid in others:
                continue
            raise ReleaseError(f"{name}: signed by key {keyid[:12]}, which the trusted root does not name for {role}")
        try:
            root.keys[keyid].verify_signature(signature, payload)
        except UnverifiedSignatureError as error:
            raise ReleaseError(f"{name}: the signature of key {keyid[:12]} is wrong") from error
        if signature.signature != signature.signature.lower():
            raise ReleaseError(f"{name}: changed after it was signed (its signature is not lower-case)")
        valid += 1
    if valid < threshold:
        raise ReleaseError(f"{name}: {valid} of {threshold} signatures that the trusted root asks for")


def _not_expired(signed: Signed, now: datetime, name: str) -> None:
    if signed.is_expired(now):
        raise ReleaseError(f"{name}: expired on {signed.expires:%Y-%m-%d %H:%M} UTC")


@dataclass(frozen=True)
class Trust:
    """A trusted root.

    Attributes:
        root: its metadata.
        content: its file's bytes.
    """

    root: Metadata[Root]
    content: bytes

    @classmethod
    def load(cls, content: bytes, name: str = "root.json") -> "Trust":
        """Return trust in a root file that its owner put there; it must be whole and signed by its own keys.

        Raises:
            ReleaseError: it is not.
        """
        root = decode(Root, content, name)
        # A root that replaced another one carries the signatures of both; only the older root could check its own.
        _check_signatures(root.signed, Root.type, root, name, others=tuple(root.signatures))
        return cls(root, content)

    @property
    def version(self) -> int:
        """Version of the root."""
        return self.root.signed.version

    def follow(self, content: bytes) -> "Trust":
        """Return trust in the root that replaces this one: the next version, signed by the keys of both.

        Raises:
            ReleaseError: it is not the next one or not signed by both.
        """
        name = f"{self.version + 1}.root.json"
        newer = decode(Root, content, name)
        if newer.signed.version != self.version + 1:
            raise ReleaseError(f"{name}: holds version {newer.signed.version}")
        old_keys, new_keys = (tuple(root.roles[Root.type].keyids) for root in (self.root.signed, newer.signed))
        _check_signatures(self.root.signed, Root.type, newer, name, others=new_keys)
        _check_signatures(newer.signed, Root.type, newer, name, others=old_keys)
        return Trust(newer, content)

    def accept(self, kind: type[T], content: bytes, name: str, now: datetime | None) -> Metadata[T]:
        """Return metadata that this root's keys signed.

        Args:
            kind: type of the role.
            content: the file's bytes.
            name: what to call it in errors.
            now: to check expiry with; None: expiry does not matter.

        Raises:
            ReleaseError: damaged, changed, signed by other keys or by too few, or expired (the root likewise).
        """
        metadata = decode(kind, content, name)
        _check_signatures(self.root.signed, kind.type, metadata, name)
        if now is not None:
            _not_expired(self.root.signed, now, "the trusted root")
            _not_expired(metadata.signed, now, name)
        if not isinstance(metadata.signed.unrecognized_fields.get(DEVICE_CLASS), str):
            raise ReleaseError(f"{name}: names no device class")
        return metadata
