"""A running service with real certificates, and devices that talk to it."""

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protos.delivery_pb2_grpc import DeliveryStub
from server.delivery.serve import Options, serve
from server.release.keys import Keys, open_keys
from server.release.store import publish

PATIENCE = 60


@dataclass(frozen=True)
class Authority:
    """A certificate authority and its folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        folder.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {folder.name}")])
        builder = _certificate(name, name, key).add_extension(x509.BasicConstraints(True, None), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, key, certificate)

    @property
    def path(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = _certificate(subject, self.certificate.subject, key)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        cert_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_path, key_path


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))


@dataclass
class Running:
    """A service in a thread of its own."""

    options: Options
    port: int = 0
    channels: list[grpc.Channel] = field(default_factory=list)
    _ready: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def start(self) -> "Running":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            await serve(self.options, self._listening)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def _listening(self, port: int) -> None:
        self.port = port
        self._ready.set()

    def stop(self) -> None:
        for channel in self.channels:
            channel.close()
        if self._thread.is_alive():
            assert self._task is not None
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(PATIENCE)

    def channel(self, authority: Authority | None, proof: tuple[Path, Path] | None = None) -> grpc.Channel:
        target = f"localhost:{self.port}"
        if authority is None:
            made = grpc.insecure_channel(target)
        else:
            chain, key = (None, None) if proof is None else (path.read_bytes() for path in proof)
            made = grpc.secure_channel(target, grpc.ssl_channel_credentials(authority.path.read_bytes(), key, chain))
        self.channels.append(made)
        return made

    def stub(self, authority: Authority | None = None, proof: tuple[Path, Path] | None = None) -> DeliveryStub:
        return DeliveryStub(self.channel(authority, proof))


def metrics(port: int) -> str:
    """Return what a service tells about itself, as OpenMetrics."""
    accepted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=accepted)
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
        return str(reply.read().decode())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority") / "own")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority") / "stranger")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "keys")


@pytest.fixture
def release(tmp_path: Path, keys: Keys, make: Callable[..., Path]) -> Callable[..., int]:
    """Publishes a new release of a class, and returns its version."""

    def published(device_class: str = "pi5", content: bytes = b"model") -> int:
        folder = make(tmp_path / f"release-{len(list(tmp_path.iterdir()))}", keys, device_class, content)
        return publish(folder, str(tmp_path / "store"), keys).version

    return published


@pytest.fixture
def free() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a service on the store, without certificates unless they are given."""
    running: list[Running] = []

    def started(**options: object) -> Running:
        given: dict[str, object] = {
            "store": str(tmp_path / "store"),
            "state": tmp_path / "state",
            "address": "127.0.0.1:0",
            "refresh": 0.05,
            **options,
        }
        running.append(Running(Options(**given)).start())  # type: ignore[arg-type]
        return running[-1]

    yield started
    for service in running:
        service.stop()
