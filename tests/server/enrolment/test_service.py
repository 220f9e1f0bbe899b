"""Enrolment over real TLS, both halves; the SuperLink alone is played by a list."""

import json
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from client.enrol import enrol
from client.home import Home
from fedstill.errors import ConfigError
from fedstill.invitation import Invitation
from server.deployment.certificates import fingerprint, make_certificates
from server.deployment.home import ServerHome
from server.enrolment.registry import Registry
from server.enrolment.service import MAX_CONNECTIONS, MAX_PER_ADDRESS, Enrolment, Guests, Server
from server.release.keys import open_keys


class Nodes:
    """Notes who is registered; refuses while it is told to, and is not there until it was asked so often."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.keys: dict[str, int] = {}
        self.down = False
        self.starting = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def listens(self) -> bool:
        self.starting -= 1
        return self.starting < 0

    def register(self, public_key: bytes, name: str) -> int:
        if self.down:
            raise ConfigError("no answer from the SuperLink")
        assert public_key.startswith(b"ecdsa-sha2-nistp384 ")
        if public_key.decode() in self.keys:
            raise ConfigError("Public key already in use.")
        self.names.append(name)
        self.keys[public_key.decode()] = 100 + len(self.names)
        self.meanwhile()
        return self.keys[public_key.decode()]

    def node_of(self, public_key: str) -> int | None:
        return self.keys.get(public_key)

    def unregister(self, node_id: int) -> None:
        self.keys = {key: node for key, node in self.keys.items() if node != node_id}


class Service:
    """A running enrolment service."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        make_certificates(folder, ("127.0.0.1",))
        self.nodes = Nodes()
        self.registry = Registry(folder / "fleet.db")
        enrolment = Enrolment(self.registry, self.nodes, "fl.example.org:8000")
        self.server = Server(ServerHome(folder), enrolment, ("127.0.0.1", 0))
        self.port: int = self.server.server_address[1]
        self.authority = fingerprint((folder / "ca.crt").read_bytes())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, authority: str = "", port: int = 0, seconds: float = 60) -> str:
        secret = self.registry.invite("pi4", seconds)
        return Invitation(f"127.0.0.1:{port or self.port}", authority or self.authority, secret).encode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found = Service(tmp_path / "server")
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_device_enrols_with_a_key_that_stays_with_it(service: Service, tmp_path: Path) -> None:
    home = Home(tmp_path / "device")
    config = enrol(home, service.token(), port=9200)
    assert (config.number, config.device_class, config.superlink) == (0, "pi4", "fl.example.org:8000")
    assert home.config() == config
    assert fingerprint(home.authority.read_bytes()) == service.authority
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    assert service.nodes.names == ["device-0"]
    assert service.registry.fleet() == {0: "pi4"}
    with pytest.raises(ConfigError, match="enrolled here already"):
        enrol(home, service.token())


def test_a_device_is_told_what_signs_downloads_unless_its_owner_said_so_before(
    service: Service, tmp_path: Path
) -> None:
    root, own = (open_keys(tmp_path / name).trust.content for name in ("keys", "own"))
    service.server.enrolment = Enrolment(
        service.registry,
        service.nodes,
        "fl.example.org:8000",
        {"delivery": "fl.example.org:8002", "root": root.decode()},
    )
    first, second = Home(tmp_path / "first"), Home(tmp_path / "second")
    second.folder.mkdir()
    second.root.write_bytes(own)
    for home, trusted in ((first, root), (second, own)):
        assert enrol(home, service.token()).delivery == "fl.example.org:8002"
        assert home.root.read_bytes() == trusted


def test_a_root_that_is_none_is_refused(service: Service, tmp_path: Path) -> None:
    also = {"delivery": "fl.example.org:8002", "root": "{}"}
    service.server.enrolment = Enrolment(service.registry, service.nodes, "fl.example.org:8000", also)
    with pytest.raises(ConfigError, match="the root of"):
        enrol(Home(tmp_path / "device"), service.token())
    assert not Home(tmp_path / "device").config_path.exists()


def test_a_token_of_a_host_that_can_not_be_is_told(tmp_path: Path) -> None:
    token = Invitation("fl..example.org:8001", "ab" * 32, "secret").encode()
    with pytest.raises(ConfigError, match=r"fl\.\.example\.org:8001 can't be reached"):
        enrol(Home(tmp_path / "device"), token)


def test_a_device_tells_nothing_to_a_server_of_another_authority(service: Service, tmp_path: Path) -> None:
    token = service.token(authority="ab" * 32)
    with pytest.raises(ConfigError, match="is not the server of this token"):
        enrol(Home(tmp_path / "device"), token)
    assert service.registry.members() == []


def test_an_authority_that_comes_along_with_the_tokens_own_is_not_trusted(service: Service, tmp_path: Path) -> None:
    """Where the base64 of the genuine certificate ends in padding, a reader that is not strict stops there."""
    other = tmp_path / "other"
    other.mkdir()
    for _ in range(50):  # a certificate's length is random
        for file in other.iterdir():
            file.unlink()
        make_certificates(other, ("127.0.0.1",))
        genuine = (other / "ca.crt").read_bytes()
        if b"=" in genuine:
            break
    service.server.authority = genuine + service.server.authority
    with pytest.raises(ConfigError, match=r"is not the server of this token|certificate is refused"):
        enrol(Home(tmp_path / "device"), service.token(authority=fingerprint(genuine)))
    assert service.registry.members() == []


def test_a_device_whose_registration_was_noted_nowhere_enrols_with_its_next_try(
    service: Service, tmp_path: Path
) -> None:
    home, token = Home(tmp_path / "device"), service.token()

    def killed() -> None:
        raise ConfigError("no answer from the SuperLink in 120 s")

    service.nodes.meanwhile = killed
    with pytest.raises(ConfigError, match="no answer"):
        enrol(home, token)
    service.nodes.meanwhile = lambda: None
    assert enrol(home, token).number == 0
    assert service.registry.member(0).node == 101
    assert service.nodes.names == ["device-0"]


def test_a_device_that_is_revoked_while_it_is_registered_gets_nowhere(service: Service, tmp_path: Path) -> None:
    service.nodes.meanwhile = lambda: service.registry.revoked(0)
    with pytest.raises(ConfigError, match="this device is revoked"):
        enrol(Home(tmp_path / "device"), service.token())
    assert service.nodes.keys == {}


def test_a_database_that_can_not_be_used_is_the_servers_failure_and_tells_nothing(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = service.token()
    (tmp_path / "server" / "fleet.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="the server can't do it now"):
        enrol(Home(tmp_path / "device"), token)
    assert "the fleet can't be read or written" in caplog.text


def test_a_token_that_is_expired_or_used_is_refused(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refused: this token is expired"):
        enrol(Home(tmp_path / "late"), service.token(seconds=-1))
    token = service.token()
    enrol(Home(tmp_path / "first"), token)
    with pytest.raises(ConfigError, match="refused: this token is used already"):
        enrol(Home(tmp_path / "second"), token)
    assert len(service.registry.members()) == 1


def test_a_device_may_try_again_when_the_superlink_was_away(service: Service, tmp_path: Path) -> None:
    home, token = Home(tmp_path / "device"), service.token()
    service.nodes.down = True
    with pytest.raises(ConfigError, match="no answer from the SuperLink"):
        enrol(home, token)
    assert service.registry.fleet() == {}
    service.nodes.down = False
    assert enrol(home, token).number == 0
    assert service.registry.fleet() == {0: "pi4"}


def test_a_server_that_is_still_starting_is_waited_for(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.enrol.PAUSE", 0.01)
    service.nodes.starting = 3
    told: list[str] = []
    assert enrol(Home(tmp_path / "device"), service.token(), tell=told.append).number == 0
    (line,) = told
    assert "can't enrol yet: the SuperLink is not up; waiting for it" in line


def test_a_server_that_does_not_come_up_is_told_in_the_end(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.enrol.PATIENCE", 0.0)
    service.nodes.starting = 1000
    home, token = Home(tmp_path / "device"), service.token()
    with pytest.raises(ConfigError, match="the SuperLink is not up"):
        enrol(home, token)
    service.nodes.starting = 0
    assert enrol(home, token).number == 0


def test_nobody_there_is_told(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.enrol.PATIENCE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ConfigError, match="nothing answers at"):
        enrol(Home(tmp_path / "device"), service.token(port=port))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"token": 1, "public_key": ""}',
        json.dumps({"token": "x" * 300, "public_key": ""}).encode(),
        json.dumps({"token": "\ud800", "public_key": ""}).encode(),
        b"[" * 16_000,
    ],
)
def test_what_is_no_request_is_refused(body: bytes, service: Service) -> None:
    assert post(service, body) == (400, {"error": "not a request for enrolment"})


def test_a_request_that_is_too_large_is_not_read(service: Service, tmp_path: Path) -> None:
    with suppress(OSError, HTTPException):  # the connection ends while the request is still on its way
        assert post(service, b" " * 1_000_000)[0] == 400
    assert enrol(Home(tmp_path / "device"), service.token()).number == 0


@pytest.mark.parametrize("key", ["", "ssh-rsa AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG", "x\0y"])
def test_a_key_of_another_kind_does_not_use_up_the_token(key: str, service: Service, tmp_path: Path) -> None:
    token = service.token()
    status, said = post(service, json.dumps({"token": Invitation.decode(token).secret, "public_key": key}).encode())
    assert status == 403
    assert "public key" in said["error"]
    assert enrol(Home(tmp_path / "device"), token).number == 0


def post(service: Service, body: bytes) -> tuple[int, dict[str, str]]:
    context = ssl.create_default_context(cadata=service.server.authority.decode())
    with closing(HTTPSConnection("127.0.0.1", service.port, timeout=60, context=context)) as connection:
        connection.request("POST", "/v1/enroll", body)
        response = connection.getresponse()
        said: dict[str, str] = json.loads(response.read())
        return response.status, said


def test_a_connection_that_says_nothing_holds_up_nobody(service: Service, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", service.port)), socket.create_connection(("127.0.0.1", service.port)):
        assert enrol(Home(tmp_path / "device"), service.token()).number == 0


def test_who_sends_a_byte_now_and_then_does_not_stay(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.enrolment.service.REQUEST_TIME", 1.0)
    context = ssl.create_default_context(cadata=service.server.authority.decode())
    plain = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    with (
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        pytest.raises((ConnectionError, ssl.SSLError)),
    ):
        drip(secured)


def drip(connection: socket.socket) -> None:
    """Send bytes of a request that never ends, for at most a minute."""
    for _ in range(600):
        connection.sendall(b"P")
        threading.Event().wait(0.1)


def test_who_does_not_finish_the_handshake_does_not_stay(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.enrolment.service.REQUEST_TIME", 0.5)
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as opened:
        opened.sendall(b"\x16\x03\x01")  # the beginning of a handshake
        assert opened.recv(1) == b""


@pytest.mark.parametrize("address", ["192.0.2.{}", "2001:db8:0:{}::1"])
def test_one_address_does_not_take_all_connections_and_they_are_given_back(address: str) -> None:
    guests, first = Guests(), address.format(1)
    assert [guests.enter(first) for _ in range(MAX_PER_ADDRESS + 1)] == [True] * MAX_PER_ADDRESS + [False]
    others = [guests.enter(address.format(number)) for number in range(2, MAX_CONNECTIONS)]
    assert sum(others) == MAX_CONNECTIONS - MAX_PER_ADDRESS
    guests.leave(first)
    assert guests.enter(first)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_proxy_on_this_machine_may_have_all_connections_and_no_more(address: str) -> None:
    guests = Guests()
    assert [guests.enter(address) for _ in range(MAX_CONNECTIONS + 1)] == [True] * MAX_CONNECTIONS + [False]


def test_addresses_of_one_site_count_as_one() -> None:
    guests = Guests()
    assert all(guests.enter(f"2001:db8::{host}") for host in range(MAX_PER_ADDRESS))
    assert not guests.enter("2001:db8::ffff")
    assert guests.enter("2001:db8:0:1::1")
