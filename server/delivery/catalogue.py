"""What is in the store, read into memory: requests are answered without touching the store.

Only whole and consistent releases are offered: those whose metadata verify under the store's newest root. Whether to
trust them is each device's own affair, which has a root from elsewhere.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tuf.api.metadata import Snapshot, Targets, Timestamp

from fedstill.errors import ReleaseError
from fedstill.release.manifest import MANIFEST, read_manifest
from fedstill.release.parcel import is_parcel
from fedstill.release.trust import Trust, decode
from fedstill.release.verify import NAME, SNAPSHOT, TARGETS, TIMESTAMP, content_digest, verify_metadata
from server.release.store import Store, root_file

NEWEST = 16  # versions of a class that are known, beside those that its rollout names
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """A version of a device class.

    Attributes:
        timestamp: content of its `timestamp.json`.
        snapshot: content of its `snapshot.json`.
        targets: content of its `targets.json`.
        files: length and SHA-256 of each file that devices may fetch.
        expires: when its first signature does, or the root.
        task: what its models do; empty for a parcel.
        student: architecture of its models; empty for a parcel.
    """

    timestamp: bytes
    snapshot: bytes
    targets: bytes
    files: Mapping[str, tuple[int, str]]
    expires: datetime
    task: str
    student: str


@dataclass(frozen=True)
class Catalogue:
    """The releases of a store.

    Attributes:
        roots: content of all versions of the root, from the first one on.
        offers: by device class and version.
        bad: why releases are not offered, by their place.
    """

    roots: tuple[bytes, ...] = ()
    offers: Mapping[str, Mapping[int, Offer]] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)

    def versions(self, device_class: str) -> list[int]:
        """Return the versions of a class, oldest first."""
        return sorted(self.offers.get(device_class, {}))


def load(store: Store, before: Catalogue, named: Callable[[str], Collection[int]]) -> Catalogue:
    """Read a store.

    Args:
        store: the store.
        before: what was read last; only what can have changed since is read again.
        named: returns the versions of a class that are needed, however old.

    Raises:
        ConfigError: the store can't be reached.
        ReleaseError: its root is damaged.
    """
    store.look_again()
    trust = store.newest_root()
    if trust is None:
        return Catalogue()
    roots = list(before.roots[: trust.version])
    for version in range(len(roots) + 1, trust.version + 1):
        roots.append(_read(store, root_file(version)))
    same_root = tuple(roots) == before.roots
    offers: dict[str, dict[int, Offer]] = {}
    bad: dict[str, str] = {}
    for name in store.classes():
        if not NAME.fullmatch(name):
            continue
        newest = _newest(store, name, bad)
        versions = [version for version in store.versions(name) if newest is None or version <= newest]
        known = before.offers.get(name, {})
        offers[name] = {}
        for version in sorted({*versions[-NEWEST:], *(set(versions) & set(named(name)))}):
            place = f"{name}/{version}"
            try:
                offers[name][version] = _offer(store, trust, name, version, known.get(version) if same_root else None)
            except ReleaseError as error:
                bad[place] = str(error)
                if before.bad.get(place) != bad[place]:  # once, not at every look
                    _LOG.warning("release is not offered", extra={"release": place, "reason": bad[place]})
    return Catalogue(tuple(roots), offers, bad)


def _newest(store: Store, name: str, bad: dict[str, str]) -> int | None:
    """Return the version that a class's own timestamp names: of a newer one the publication goes on, or broke off.

    None: it can't be read; the reason is put into `bad`, and what is there is offered.
    """
    place = f"{name}/{TIMESTAMP}"
    try:
        return decode(Timestamp, _read(store, place), place).signed.snapshot_meta.version
    except ReleaseError as error:
        bad[place] = str(error)
        return None


def _offer(store: Store, trust: Trust, name: str, version: int, known: Offer | None) -> Offer:
    """Return what is offered as a version.

    Raises:
        ReleaseError: it is not good.
    """
    place = f"{name}/{version}"
    timestamp = _read(store, f"{place}/{TIMESTAMP}")
    if known is not None and known.timestamp == timestamp:
        return known
    snapshot, targets = (_read(store, f"{place}/{part}") for part in (SNAPSHOT, TARGETS))
    signed = verify_metadata(trust, timestamp, snapshot, targets, None)
    if (signed.device_class, signed.version) != (name, version):
        raise ReleaseError(f"holds {signed.device_class} version {signed.version}")
    content = b"" if is_parcel(signed) else _read(store, f"{place}/{MANIFEST}")
    if not is_parcel(signed) and signed.files.get(MANIFEST) != content_digest(content):
        raise ReleaseError(f"{MANIFEST}: not the file that was signed")
    ends = [
        trust.root.signed.expires,
        decode(Timestamp, timestamp, TIMESTAMP).signed.expires,
        decode(Snapshot, snapshot, SNAPSHOT).signed.expires,
        decode(Targets, targets, TARGETS).signed.expires,
    ]
    if is_parcel(signed):
        return Offer(timestamp, snapshot, targets, signed.files, min(ends), task="", student="")
    manifest = read_manifest(content)
    return Offer(timestamp, snapshot, targets, signed.files, min(ends), manifest.task, manifest.student)


def _read(store: Store, name: str) -> bytes:
    content = store.read(name)
    if content is None:
        raise ReleaseError(f"{name}: missing")
    return content
