"""The enrolment service: HTTPS on a port of its own, for devices that hold a token.

    GET  /ca.crt      the authority's certificate; a device compares it with the fingerprint in its token
    POST /v1/enroll   {"token": secret, "public_key": OpenSSH}
                      -> {"number", "device_class", "superlink", "delivery", "root"}
                      or status 503 while the SuperLink is still starting: ask again

It is open to everyone, so: small requests, short timeouts, few at a time, and no answer tells more than what is wrong
with the request.
"""

import ipaddress
import json
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from fedstill.errors import ConfigError, FedstillError
from server.deployment.home import ServerHome
from server.enrolment.registry import Registry

log = logging.getLogger("fedstill")
MAX_BODY = 16 * 1024
TIMEOUT = 10.0  # seconds, for each read and for the handshake
REQUEST_TIME = 30.0
"""Seconds for handshake and request together: who sends a byte now and then would stay for ever otherwise."""
MAX_CONNECTIONS = 32
MAX_PER_ADDRESS = 16
"""Connections from one address, or from one network of IPv6, at a time: nobody takes all of them. A proxy on this
machine, through which all come, may: it counts by itself where they come from."""
MAX_SECRET = 200


class Nodes(Protocol):
    """Where devices are registered; Flower's control API."""

    def listens(self) -> bool:
        """Return whether it is there."""

    def node_of(self, public_key: str) -> int | None:
        """Return the node id under which a key is registered, None where it is not."""

    def register(self, public_key: bytes, name: str) -> int:
        """Let the holder of a key connect; return its node id."""

    def unregister(self, node_id: int) -> None:
        """Turn a node away from now on."""


class Enrolment:
    """Admits devices.

    Args:
        registry: the fleet.
        nodes: where devices are registered.
        superlink: address that devices are told, host:port.
        also: what else they are told.
    """

    def __init__(self, registry: Registry, nodes: Nodes, superlink: str, also: Mapping[str, str] | None = None) -> None:
        self._registry = registry
        self._nodes = nodes
        self._superlink = superlink
        self._also = dict(also or {})
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether devices can be registered now."""
        return self._nodes.listens()

    def enrol(self, secret: str, public_key: str) -> dict[str, Any]:
        """Admit the holder of a key, and return what it needs to know.

        Raises:
            ConfigError: the token or the key is refused, or the SuperLink does not answer: then the device may try
                again with the same token.
        """
        key = normal_key(public_key)
        with self._lock:
            member = self._registry.admit(secret, key)
            if member.node is None:
                # An attempt that ended between the two registered it and noted nothing.
                node = self._nodes.node_of(key)
                if node is None:
                    node = self._nodes.register(key.encode(), f"device-{member.number}")
                self._registry.registered(member.number, node)
                if self._registry.member(member.number).revoked is not None:  # meanwhile, when it had no node
                    self._nodes.unregister(node)
                    raise ConfigError("this device is revoked")
        log.info("device %d of class %s is enrolled", member.number, member.device_class)
        return {
            "number": member.number,
            "device_class": member.device_class,
            "superlink": self._superlink,
            **self._also,
        }


def normal_key(public_key: str) -> str:
    """Return a public key without its comment.

    Raises:
        ConfigError: it is not an elliptic curve key that Flower takes.
    """
    try:
        key = load_ssh_public_key(public_key.encode())
    except (ValueError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise ConfigError("the public key can't be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError("the public key is not of curve P-384")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class _Handler(BaseHTTPRequestHandler):
    server: "Server"
    connection: ssl.SSLSocket
    protocol_version = "HTTP/1.0"
    server_version, sys_version = "fedstill", ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        if self.path == "/ca.crt":
            self._reply(HTTPStatus.OK, self.server.authority, "application/x-pem-file")
        else:
            self._say(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def do_POST(self) -> None:
        if self.path != "/v1/enroll":
            self._say(HTTPStatus.NOT_FOUND, {"error": "no such page"})
            return
        try:
            secret, public_key = self._read()
        except (ValueError, RecursionError):
            self._say(HTTPStatus.BAD_REQUEST, {"error": "not a request for enrolment"})
            return
        self.server.arrived(self.connection)
        if not self.server.enrolment.ready:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the SuperLink is not up"})
            return
        try:
            self._say(HTTPStatus.OK, self.server.enrolment.enrol(secret, public_key))
        except ConfigError as error:
            log.warning("enrolment refused: %s", error)
            self._say(HTTPStatus.FORBIDDEN, {"error": str(error)})
        except FedstillError as error:
            log.error("enrolment failed: %s", error)
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "the server can't do it now"})

    def _read(self) -> tuple[str, str]:
        length = int(self.headers.get("Content-Length", ""))
        if not 0 < length <= MAX_BODY:
            raise ValueError("size")
        content = json.loads(self.rfile.read(length))
        if not isinstance(content, dict):
            raise ValueError("form")
        secret, public_key = content.get("token"), content.get("public_key")
        if not isinstance(secret, str) or not isinstance(public_key, str):
            raise ValueError("fields")
        if len(secret) > MAX_SECRET or not secret.isascii():
            raise ValueError("secret")
        return secret, public_key

    def _say(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._reply(status, json.dumps(content).encode(), "application/json")

    def _reply(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug(format, *arguments)


class Server(ThreadingHTTPServer):
    """Serves enrolment over TLS.

    Args:
        home: the server's folder.
        enrolment: who admits.
        address: host and port to listen on.
    """

    daemon_threads = True

    def __init__(self, home: ServerHome, enrolment: Enrolment, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.enrolment = enrolment
        self.authority = (home / "ca.crt").read_bytes()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(home / "server.crt", home / "server.key")
        self._guests = Guests()
        self._ends: dict[socket.socket, threading.Timer] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, unless too many are open."""
        if self._guests.enter(client_address[0]):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread: nobody else waits for it."""
        try:
            request.settimeout(TIMEOUT)
            with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
                self._ends[secured] = threading.Timer(REQUEST_TIME, _end, [secured])
                self._ends[secured].start()
                try:
                    secured.do_handshake()
                    self.finish_request(secured, client_address)
                finally:
                    self._ends.pop(secured).cancel()
        except OSError as error:
            log.debug("a connection ended: %s", error)
        finally:
            self.shutdown_request(request)
            self._guests.leave(client_address[0])

    def arrived(self, connection: ssl.SSLSocket) -> None:
        """Let a connection whose request is complete last until it is answered."""
        self._ends[connection].cancel()


class Guests:
    """How many connections are open, in all and by where they come from."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, address: str) -> bool:
        """Return whether one more from an address is let in."""
        network = _network(address)
        proxied = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        at_most = MAX_CONNECTIONS if proxied else MAX_PER_ADDRESS
        with self._lock:
            if self._open.total() >= MAX_CONNECTIONS or self._open[network] >= at_most:
                return False
            self._open[network] += 1
            return True

    def leave(self, address: str) -> None:
        """Count one less."""
        with self._lock:
            self._open[_network(address)] -= 1
            self._open = +self._open


def _network(address: str) -> str:
    """Return an IPv4 address, or the 64 bits of an IPv6 one that a single site has at the least."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)


def _end(connection: socket.socket) -> None:
    """End a connection under whoever reads from it."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
