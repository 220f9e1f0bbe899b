"""A device, the keys that it trusts, two good releases, and the server that it asks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from client.updates.delivery import Access, Server
from client.updates.home import ROOT, Home
from protos.delivery_pb2_grpc import add_DeliveryServicer_to_server
from server.release.keys import Keys, open_keys
from tests.client.devices import Delivery, Device, make_release


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return open_keys(tmp_path_factory.mktemp("signing") / "keys")


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> tuple[Path, Path]:
    """Two good releases, the older one first."""
    folder = tmp_path_factory.mktemp("releases")
    return make_release(folder / "old", keys, seed=1), make_release(folder / "new", keys, seed=2)


@pytest.fixture
def device(tmp_path: Path, keys: Keys, releases: tuple[Path, Path]) -> Iterator[Device]:
    """A device that has nothing installed; the server offers the older release."""
    delivery = Delivery(releases[0])
    server = grpc.server(ThreadPoolExecutor(4))
    add_DeliveryServicer_to_server(delivery, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    home = Home(tmp_path / "home")
    home.make()
    (home.folder / ROOT).write_bytes(keys.trust.content)
    with Access(address, insecure=True).channel() as channel:
        yield Device(home, delivery, address, Server(channel, address), lambda: server.stop(None).wait())
    server.stop(None).wait()
