"""The store of published releases: a local folder, or any file system that fsspec reaches by URL.

    <class>/<version>/      a release's files, complete before anything points to them; never changed but for
                            its own timestamp.json, by which it can be given to devices that are to have no newer one
    <class>/timestamp.json  the newest version of the class, written last
    roots/<n>.root.json     all versions of the root, for devices that trust an older one

Each file is written under a temporary name and renamed, which is atomic on a local disk; object stores put
whole objects. One publisher at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tuf.api.metadata import MetaFile, Timestamp

from fedstill.errors import ConfigError, ReleaseError
from fedstill.files import write_atomic
from fedstill.release.trust import Trust
from fedstill.release.verify import SNAPSHOT, TARGETS, TIMESTAMP, Signed, verify_folder, verify_metadata
from server.release.keys import ROOTS, Keys
from server.release.sign import timestamp


class Store:
    """Files of a store.

    Args:
        url: local path or fsspec URL.

    Raises:
        ConfigError: nothing installed knows the URL's protocol.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._system: Any
            self._system, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{url}: {error}") from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.url}: {error.strerror or error}") from error

    def look_again(self) -> None:
        """Forget what was listed before, which some file systems remember."""
        self._system.invalidate_cache()

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None: there is no such file."""
        with self._errors():
            try:
                content: bytes = self._system.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of a file from `start` to before `end`.

        Raises:
            ConfigError: it can't be read.
        """
        with self._errors():
            content: bytes = self._system.cat_file(self._path(name), start=start, end=end)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name, and rename it; on a local disk it outlasts a power failure then."""
        with self._errors():
            if isinstance(self._system, LocalFileSystem):
                write_atomic(Path(self._path(name)), content)
                return
            folder, _, last = self._path(name).rpartition("/")
            temporary = f"{folder}/.{last}.part"
            self._system.makedirs(folder, exist_ok=True)
            self._system.pipe_file(temporary, content)
            self._system.mv(temporary, self._path(name))

    def classes(self) -> list[str]:
        """Return the device classes that have a newest release."""
        with self._errors():
            found = self._system.glob(self._path(f"*/{TIMESTAMP}"))
        return sorted(str(path).split("/")[-2] for path in found)

    def versions(self, device_class: str) -> list[int]:
        """Return the versions of a class that were published whole, oldest first."""
        with self._errors():
            found = self._system.glob(self._path(f"{device_class}/*/{TIMESTAMP}"))
        return sorted(int(name) for path in found if (name := str(path).split("/")[-2]).isdecimal())

    def newest_root(self) -> Trust | None:
        """Return the newest version of the root; None: nothing was ever published.

        Raises:
            ReleaseError: it is damaged.
        """
        with self._errors():
            found = [str(path).split("/")[-1] for path in self._system.glob(self._path(f"{ROOTS}/*.root.json"))]
        numbers = [int(first) for name in found if (first := name.split(".")[0]).isdecimal()]
        content = self.read(root_file(max(numbers))) if numbers else None
        return None if content is None else Trust.load(content)


def root_file(version: int) -> str:
    """Return where a version of the root lies."""
    return f"{ROOTS}/{version}.root.json"


def newest(store: Store, device_class: str, trust: Trust, now: datetime | None) -> Signed | None:
    """Return what is newest of a class in a store, verified; None: nothing is.

    Raises:
        ReleaseError: what is there is not to be trusted.
    """
    found = store.read(f"{device_class}/{TIMESTAMP}")
    if found is None:
        return None
    version = trust.accept(Timestamp, found, f"{device_class}/{TIMESTAMP}", now).signed.snapshot_meta.version
    parts = [store.read(f"{device_class}/{version}/{name}") for name in (SNAPSHOT, TARGETS)]
    if parts[0] is None or parts[1] is None:
        raise ReleaseError(f"{store.url}: metadata of {device_class} version {version} are missing")
    signed = verify_metadata(trust, found, parts[0], parts[1], now)
    if signed.device_class != device_class:
        raise ReleaseError(f"{store.url}: {device_class} holds a release for {signed.device_class}")
    return signed


def _known(store: Store, device_class: str, keys: Keys) -> Signed | None:
    """Return what is newest under the newest root, or under an earlier one whose keys have been replaced since."""
    reason: ReleaseError | None = None
    trusts = [Trust.load(content, name) for name, content in keys.roots().items()]
    for trust in sorted(trusts, key=lambda found: -found.version):
        try:
            return newest(store, device_class, trust, None)
        except ReleaseError as error:
            reason = error
    raise ReleaseError(f"{store.url}: {device_class}: not of this installation: {reason}")


def check_roots(store: Store, keys: Keys) -> None:
    """Refuse a store whose devices follow other roots: they would trust nothing in it any more.

    Raises:
        ReleaseError: it is of another installation.
    """
    own, there = keys.roots(), store.newest_root()
    if there is not None and own.get(f"{there.version}.root.json") != there.content:
        raise ReleaseError(f"{store.url}: not of this installation: its root version {there.version} is another one")


def publish(folder: Path, url: str, keys: Keys) -> Signed:
    """Copy a release into a store.

    Args:
        folder: the release; it is verified first.
        url: the store.
        keys: of the installation.

    Raises:
        ReleaseError: the release is not good, not newer than what the store has, or the store has the roots of another
            installation, or newer ones.
        ConfigError: the store can't be reached or written.
    """
    manifest, signed = verify_folder(folder, keys.trust, datetime.now(UTC))
    store = Store(url)
    check_roots(store, keys)
    before = _known(store, signed.device_class, keys)
    if before is not None and (
        signed.version <= before.version or signed.timestamp_version <= before.timestamp_version
    ):
        raise ReleaseError(
            f"{signed.device_class} version {signed.version} is not newer than version {before.version} in {url} "
            f"(timestamp {before.timestamp_version}); sign it again for a newer one"
        )
    place = f"{manifest.device_class}/{signed.version}"
    for name in (*signed.files, TARGETS, SNAPSHOT, TIMESTAMP):
        store.write(f"{place}/{name}", (folder / name).read_bytes())
    for name, content in keys.roots().items():
        store.write(f"{ROOTS}/{name}", content)
    store.write(f"{manifest.device_class}/{TIMESTAMP}", (folder / TIMESTAMP).read_bytes())
    return signed


def renew(url: str, keys: Keys, days: float) -> list[Signed]:
    """Renew all timestamps of each class in a store, and return what is newest.

    Older versions whose keys have been replaced or whose targets have expired keep their timestamps: nobody installs
    them any more.

    Raises:
        ReleaseError: the newest release of a class is not good under the newest root, or its targets have expired.
        ConfigError: the store holds no release, or can't be reached or written.
    """
    store = Store(url)
    names = store.classes()
    if not names:
        raise ConfigError(f"{url}: no release here")
    return [_renew_class(store, name, keys, days) for name in names]


def _renew_class(store: Store, name: str, keys: Keys, days: float) -> Signed:
    trust, now = keys.trust, datetime.now(UTC)
    before = newest(store, name, trust, None)
    assert before is not None
    older = [version for version in store.versions(name) if version < before.version]
    fresh: list[tuple[str, bytes]] = []
    # A newer release gets a newer timestamp: a device that goes on from one to the other must not see a replay.
    for version in (*older, before.version):
        place = f"{name}/{version}"
        snapshot, targets = (store.read(f"{place}/{part}") or b"" for part in (SNAPSHOT, TARGETS))
        meta = MetaFile.from_data(version, snapshot, ["sha256"])
        content = timestamp(meta, name, keys.next_version(name), keys, days)
        try:
            renewed = verify_metadata(trust, content, snapshot, targets, now)
        except ReleaseError:
            if version == before.version:
                raise
            continue
        fresh.append((place, content))
    fresh.append((name, content))
    for place, content in reversed(fresh):
        store.write(f"{place}/{TIMESTAMP}", content)
    return renewed
