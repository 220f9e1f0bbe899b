import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client.home import DeviceConfig, Home
from client.reach import reach
from fedstill.errors import ConfigError
from server.deployment.certificates import make_certificates


class Superlink(HTTPServer):
    """Speaks TLS with a certificate of its own authority, and has a clock of its own."""

    ahead, status = 0.0, 401


class Handler(BaseHTTPRequestHandler):
    server: Superlink

    def do_POST(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.server.ahead, usegmt=True)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[Superlink]:
    folder = tmp_path / "server"
    folder.mkdir()
    make_certificates(folder, ("127.0.0.1",))
    server = Superlink(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, superlink: Superlink) -> Home:
    found = Home(tmp_path / "device")
    found.folder.mkdir()
    found.authority.write_bytes((tmp_path / "server" / "ca.crt").read_bytes())
    return found


def config(superlink: Superlink) -> DeviceConfig:
    return DeviceConfig(number=0, device_class="pi4", superlink=f"127.0.0.1:{superlink.server_port}")


@pytest.mark.parametrize(
    ("server_ahead", "trouble"),
    [(0, ""), (-60, "s ahead of the server's, which refuses it"), (60, ""), (400, "s behind the server's")],
)
def test_a_clock_that_the_server_would_refuse_is_told(
    superlink: Superlink, home: Home, server_ahead: float, trouble: str
) -> None:
    superlink.ahead = server_ahead
    found = reach(home, config(superlink))
    assert found.ahead == pytest.approx(-server_ahead, abs=5)
    assert trouble in found.trouble
    assert bool(trouble) == bool(found.trouble)


def test_a_server_of_another_authority_is_not_asked(superlink: Superlink, home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other, ("127.0.0.1",))
    home.authority.write_bytes((other / "ca.crt").read_bytes())
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+: the server's certificate is refused"):
        reach(home, config(superlink))


@pytest.mark.parametrize("status", [404, 502])
def test_a_proxy_without_a_superlink_behind_it_is_none(superlink: Superlink, home: Home, status: int) -> None:
    superlink.status = status
    with pytest.raises(ConfigError, match=rf"does not answer as a SuperLink does \(status {status}\)"):
        reach(home, config(superlink))


def test_a_server_that_is_away_is_told(home: Home) -> None:
    away = DeviceConfig(number=0, device_class="pi4", superlink="127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9 can't be reached"):
        reach(home, away)


def test_a_name_that_no_host_can_have_is_told(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"fl\.\.example\.org:8000 can't be reached"):
        reach(home, DeviceConfig(number=0, device_class="pi4", superlink="fl..example.org:8000"))
