"""What a run's devices need, from a real store through the real service onto a device's disk."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from client.parcels import KEPT, Parcels
from client.updates.delivery import Access
from fedstill.errors import DataError, ReleaseError
from fedstill.release.parcel import CONTENT, verify_parcel
from fedstill.release.verify import METADATA, content_digest
from server.delivery.service import CHUNK
from server.release.keys import Keys, open_keys
from server.release.parcels import publish_parcel
from server.release.store import Store

from .conftest import Running

Start = Callable[..., Running]
PROXY = np.random.default_rng(0).bytes(5 * CHUNK + 100)
SHA256 = content_digest(PROXY)[1]


@pytest.fixture
def published(tmp_path: Path, keys: Keys) -> str:
    """The name of a proxy set's parcel in the store."""
    (tmp_path / "proxy.npy").write_bytes(PROXY)
    return publish_parcel(tmp_path / "proxy.npy", "proxy", str(tmp_path / "store"), keys)


@pytest.fixture
def parcels(tmp_path: Path, keys: Keys, published: str, start: Start) -> Parcels:
    """A device that trusts the keys."""
    (tmp_path / "root.json").write_bytes(keys.trust.content)
    return device(tmp_path, start().port)


def device(folder: Path, port: int, step: Callable[[str], None] = lambda name: None) -> Parcels:
    access = Access(f"127.0.0.1:{port}", insecure=True)
    return Parcels(folder / "parcels", folder / "root.json", access, "device-3", step)


def stored(tmp_path: Path, name: str) -> Path:
    (found,) = (tmp_path / "store" / name).glob(f"*/{CONTENT}")
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_parcel_comes_once_and_is_kept(parcels: Parcels, start: Start, tmp_path: Path) -> None:
    path = parcels.path("proxy", SHA256[:16])
    assert path.read_bytes() == PROXY
    assert device(tmp_path, port=1).path("proxy", SHA256[:16]) == path  # nobody is there, and nobody is asked


@pytest.mark.parametrize("place", [0, CHUNK, len(PROXY) - 1])
def test_a_byte_that_changed_at_the_server_is_refused(
    place: int, parcels: Parcels, published: str, tmp_path: Path
) -> None:
    flip(stored(tmp_path, published), place)
    with pytest.raises(DataError, match="another content than the signed one"):
        parcels.path("proxy", SHA256[:16])
    assert not list((tmp_path / "parcels").rglob(CONTENT))


def test_a_byte_that_changed_on_the_device_is_fetched_anew(parcels: Parcels) -> None:
    path = parcels.path("proxy", SHA256[:16])
    flip(path, 77)
    assert parcels.path("proxy", SHA256[:16]).read_bytes() == PROXY


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_changed_on_the_device_vouch_for_nothing(name: str, parcels: Parcels) -> None:
    metadata = parcels.path("proxy", SHA256[:16]).with_name(name)
    good = metadata.read_bytes()
    flip(metadata, 40)
    assert parcels.path("proxy", SHA256[:16]).read_bytes() == PROXY
    assert metadata.read_bytes() == good


def test_an_interrupted_download_goes_on_where_it_was(parcels: Parcels, tmp_path: Path) -> None:
    port = int(parcels.access.server.rpartition(":")[2])
    chunks = list[str]()

    def interrupted(name: str) -> None:
        chunks.extend([name] if name.endswith("chunk") else [])
        if len(chunks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device(tmp_path, port, interrupted).path("proxy", SHA256[:16])
    rest = list[str]()
    path = device(tmp_path, port, rest.append).path("proxy", SHA256[:16])
    assert path.read_bytes() == PROXY
    assert sum(name.endswith("chunk") for name in rest) == 3  # of the six that there are


def test_what_others_signed_is_refused(parcels: Parcels, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(open_keys(tmp_path / "others").trust.content)
    with pytest.raises(DataError):
        parcels.path("proxy", SHA256[:16])
    assert not list((tmp_path / "parcels").rglob(CONTENT))


def test_what_the_server_does_not_have_is_told(parcels: Parcels) -> None:
    with pytest.raises(DataError, match="does not offer it"):
        parcels.path("proxy", "0" * 16)


def test_one_parcel_does_not_pass_for_another(published: str, keys: Keys, tmp_path: Path) -> None:
    place = stored(tmp_path, published).parent
    metadata = {name: (place / name).read_bytes() for name in METADATA}
    assert verify_parcel(keys.trust, metadata, published, datetime.now(UTC)).device_class == published
    with pytest.raises(ReleaseError, match="the signed metadata are of"):
        verify_parcel(keys.trust, metadata, f"backbone-{SHA256[:16]}", None)


def test_a_parcel_is_signed_once_and_again_when_its_signatures_no_longer_hold(
    published: str, keys: Keys, tmp_path: Path
) -> None:
    url = str(tmp_path / "store")
    assert publish_parcel(tmp_path / "proxy.npy", "proxy", url, keys) == published
    assert Store(url).versions(published) == [1]
    keys.rotate("timestamp")
    assert publish_parcel(tmp_path / "proxy.npy", "proxy", url, keys) == published
    assert Store(url).versions(published) == [1, 2]


@pytest.fixture
def followed(parcels: Parcels, keys: Keys, start: Start, tmp_path: Path) -> int:
    """The port of a service whose parcels a newer root vouches for; the device, which trusts the first, has the proxy
    set by that."""
    keys.rotate("timestamp")
    publish_parcel(tmp_path / "proxy.npy", "proxy", str(tmp_path / "store"), keys)
    port = start(state=tmp_path / "other").port
    device(tmp_path, port).path("proxy", SHA256)
    return port


def test_a_parcel_that_a_newer_root_vouches_for_is_kept(followed: int, tmp_path: Path) -> None:
    chunks = list[str]()
    assert device(tmp_path, followed, chunks.append).path("proxy", SHA256).read_bytes() == PROXY
    assert device(tmp_path, port=1).path("proxy", SHA256).read_bytes() == PROXY  # nobody is there
    assert chunks == []


def test_content_that_was_only_signed_anew_is_not_fetched_again(
    parcels: Parcels, keys: Keys, start: Start, tmp_path: Path
) -> None:
    before = parcels.path("proxy", SHA256).with_name("timestamp.json").read_bytes()
    (tmp_path / "backbone").write_bytes(b"backbone")
    keys.rotate("timestamp")
    for kind, name in (("proxy", "proxy.npy"), ("backbone", "backbone")):
        publish_parcel(tmp_path / name, kind, str(tmp_path / "store"), keys)
    port = start(state=tmp_path / "other").port
    device(tmp_path, port).path("backbone", content_digest(b"backbone")[1])  # it brings the newer root
    with pytest.raises(DataError):
        device(tmp_path, port=1).path("proxy", SHA256)  # of a replaced key
    steps = list[str]()
    path = device(tmp_path, port, steps.append).path("proxy", SHA256)
    assert (path.read_bytes(), steps) == (PROXY, [])
    assert path.with_name("timestamp.json").read_bytes() != before


@pytest.mark.parametrize("place", [0, 200])
def test_a_newer_root_that_went_bad_on_the_disk_is_passed_over_until_it_comes_again(
    place: int, followed: int, tmp_path: Path
) -> None:
    root = tmp_path / "parcels" / "2.root.json"
    good = root.read_bytes()
    flip(root, place)
    with pytest.raises(DataError, match="unavailable"):
        device(tmp_path, port=1).path("proxy", SHA256)
    steps = list[str]()
    assert device(tmp_path, followed, steps.append).path("proxy", SHA256).read_bytes() == PROXY
    assert (root.read_bytes(), steps) == (good, [])


def test_a_newer_root_of_others_on_the_disk_vouches_for_nothing(parcels: Parcels, tmp_path: Path) -> None:
    place = parcels.path("proxy", SHA256).parent
    others = open_keys(tmp_path / "others")
    others.rotate("timestamp")
    publish_parcel(tmp_path / "proxy.npy", "proxy", str(tmp_path / "theirs"), others)
    (theirs,) = (tmp_path / "theirs" / place.name).glob(f"*/{CONTENT}")
    for name in METADATA:
        (place / name).write_bytes(theirs.with_name(name).read_bytes())
    (tmp_path / "parcels" / "2.root.json").write_bytes(others.trust.content)
    with pytest.raises(DataError, match="unavailable"):
        device(tmp_path, port=1).path("proxy", SHA256)
    assert parcels.path("proxy", SHA256).read_bytes() == PROXY


def test_old_parcels_make_room(parcels: Parcels, keys: Keys, start: Start, tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        path = tmp_path / f"backbone-{number}"
        path.write_bytes(bytes([number]) * 100)
        publish_parcel(path, "backbone", str(tmp_path / "store"), keys)
    port = start(state=tmp_path / "other").port  # one that has seen them all
    for number in range(KEPT + 2):
        device(tmp_path, port).path("backbone", content_digest(bytes([number]) * 100)[1])
    assert len(list((tmp_path / "parcels").iterdir())) == KEPT
