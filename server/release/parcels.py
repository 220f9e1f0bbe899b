"""Publish what a run's devices need before its first round, as parcels in a store (`fedstill.release.parcel`)."""

from datetime import UTC, datetime
from pathlib import Path

from fedstill.errors import ReleaseError
from fedstill.release.parcel import CONTENT, parcel_name
from fedstill.release.verify import METADATA, TIMESTAMP, content_digest
from server.release.keys import ROOTS, Keys
from server.release.sign import signed_metadata
from server.release.store import Store, check_roots, newest


def publish_parcel(path: Path, kind: str, url: str, keys: Keys) -> str:
    """Sign a file and copy it into a store, unless it is there under signatures that hold; return the parcel's name.

    Args:
        path: the file.
        kind: a word for what it is.
        url: the store.
        keys: of the installation.

    Raises:
        ReleaseError: the store has the roots of another installation.
        ConfigError: the store can't be reached or written, or too few private keys are here.
    """
    content = path.read_bytes()
    facts = content_digest(content)
    name, store = parcel_name(kind, facts[1]), Store(url)
    check_roots(store, keys)
    if _holds(store, name, keys):
        return name
    version = keys.next_version(name)
    metadata = signed_metadata({CONTENT: facts}, name, version, keys)
    store.write(f"{name}/{version}/{CONTENT}", content)
    for part in reversed(METADATA):  # the timestamp last: what it names is there
        store.write(f"{name}/{version}/{part}", metadata[part])
    for root, held in keys.roots().items():
        store.write(f"{ROOTS}/{root}", held)
    store.write(f"{name}/{TIMESTAMP}", metadata[TIMESTAMP])
    return name


def _holds(store: Store, name: str, keys: Keys) -> bool:
    try:
        return newest(store, name, keys.trust, datetime.now(UTC)) is not None
    except ReleaseError:  # expired, of replaced keys, or damaged: it is signed anew
        return False
