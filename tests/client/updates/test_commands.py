"""The device's commands from end to end: over TLS, with the real trial, the real processes and the real memory."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import numpy as np
import pytest
import typer
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from client.commands import register
from client.predict import PredictionError, connect
from fedstill.errors import ConfigError, UpdateError
from fedstill.release.manifest import FLOAT_FILE
from protos.delivery_pb2 import OUTCOME_COMMITTED, OUTCOME_INSTALLED
from protos.delivery_pb2_grpc import add_DeliveryServicer_to_server
from server.release.keys import Keys, open_keys
from tests.client.devices import IMAGES, LABELS, Delivery, Device, make_release, version_of
from tests.resident import resident

ROOT_FOLDER = str(Path(__file__).parents[3])
MEGABYTE = 1_000_000
app = typer.Typer()
register(app)


@app.callback()
def _root() -> None:
    pass


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["client", *map(str, arguments)])


def certificate() -> tuple[bytes, bytes]:
    """Return a key and a certificate that it signed itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM)


@pytest.fixture
def served(tmp_path: Path, keys: Keys) -> Iterator[tuple[Delivery, str, Path]]:
    """A server over TLS with a release whose int8 file is the slower one; its address; its certificate."""
    delivery = Delivery(make_release(tmp_path / "release", keys, "slow"))
    private, public = certificate()
    (tmp_path / "ca.pem").write_bytes(public)
    server = grpc.server(ThreadPoolExecutor(4))
    add_DeliveryServicer_to_server(delivery, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, public)]))
    server.start()
    yield delivery, f"127.0.0.1:{port}", tmp_path / "ca.pem"
    server.stop(None).wait()


def test_from_trust_to_predictions(served: tuple[Delivery, str, Path], keys: Keys, tmp_path: Path) -> None:
    delivery, address, ca = served
    home, version = tmp_path / "home", version_of(delivery.folder)
    trusted = run("trust", keys.folder / "root.json", "--home", home)
    assert (trusted.exit_code, trusted.output[:23]) == (0, "trusted: root version 1")
    found = run("update", "--server", address, "--ca", ca, "--class", "pi5", "--home", home)
    # The float file is the faster one here, so it is what runs.
    assert (found.exit_code, found.output.split(";")[0]) == (0, f"kept: version {version} runs ({FLOAT_FILE})")
    assert delivery.outcomes() == [(version, OUTCOME_INSTALLED), (version, OUTCOME_COMMITTED)]
    installed = delivery.reports[0]
    assert 0 < installed.latency_p50_ms <= installed.latency_p90_ms <= installed.latency_p99_ms
    assert 20 * MEGABYTE < installed.peak_rss_bytes < 120 * MEGABYTE
    shown = run("status", "--home", home).output
    assert f"running          version {version} ({FLOAT_FILE})\n" in shown
    assert "reports waiting  0\n" in shown

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fedstill.cli", "client", "predict", "--home", str(home), "--http", str(port)]
    environment = {**os.environ, "PYTHONPATH": ROOT_FOLDER}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("serving ")
            with connect(home / "predict.sock") as predictor:
                names = [LABELS[row.argmax()] for row in _expected(delivery.folder)]
                found_labels = [row.label for row in predictor.predict(IMAGES, labels=names)]
                assert found_labels == names
                row = predictor.predict(IMAGES[0])[0]
                assert row.version == version
                assert sum(row.probabilities) == pytest.approx(1)
                with pytest.raises(PredictionError, match="images of float32; uint8"):
                    predictor.predict(IMAGES.astype(np.float32))
                with pytest.raises(PredictionError, match="1 to 500 images of 256 bytes are wanted"):
                    predictor.predict(IMAGES[0, 0, :3])
                student = predictor.status()["pid"]
                alone, both = resident(student), resident(process.pid, student)
                print(f"in memory: student {alone / MEGABYTE:.0f} MB, with its supervisor {both / MEGABYTE:.0f} MB")
                assert 20 * MEGABYTE < alone < both < 120 * MEGABYTE
            assert _http(port, "Host: evil.example") == 403
            assert _http(port, "Host: localhost\r\nOrigin: http://evil.example") == 403
            assert _http(port, "Host: localhost") == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert not Path(f"/proc/{student}").exists()
    assert not (home / "predict.sock").exists()
    with pytest.raises(PredictionError, match="is `fedstill client predict` at work"):
        connect(home / "predict.sock").status()
    run("update", "--server", address, "--ca", ca, "--class", "pi5", "--home", home)
    assert (delivery.reports[-1].samples, delivery.reports[-1].accuracy) == (len(IMAGES), 1.0)


def _expected(folder: Path) -> np.ndarray:
    from fedstill.release.manifest import read_manifest

    return read_manifest((folder / "manifest.json").read_bytes()).self_test.expected[FLOAT_FILE].values()


def _http(port: int, headers: str) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET /status HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_a_server_that_its_authority_does_not_vouch_for_is_not_asked(
    served: tuple[Delivery, str, Path], keys: Keys, tmp_path: Path
) -> None:
    delivery, address, _ = served
    (tmp_path / "other.pem").write_bytes(certificate()[1])
    run("trust", keys.folder / "root.json", "--home", tmp_path / "home")
    options: list[str | Path] = ["--server", address, "--class", "pi5", "--home", tmp_path / "home"]
    found = run("update", *options, "--ca", tmp_path / "other.pem")
    assert isinstance(found.exception, UpdateError)
    assert "unavailable" in str(found.exception)
    assert delivery.asked == []


def test_a_device_shows_its_own_certificate_where_the_server_asks_for_one(
    device: Device, keys: Keys, tmp_path: Path
) -> None:
    private, public = certificate()
    for name, content in (("key.pem", private), ("certificate.pem", public)):
        (tmp_path / name).write_bytes(content)
    device.delivery.granted = False
    server = grpc.server(ThreadPoolExecutor(2))
    add_DeliveryServicer_to_server(device.delivery, server)
    mutual = grpc.ssl_server_credentials([(private, public)], public, require_client_auth=True)
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', mutual)}"
    server.start()
    options: list[str | Path] = ["--server", address, "--class", "pi5", "--home", device.home.folder]
    options += ["--ca", tmp_path / "certificate.pem"]
    assert isinstance(run("update", *options).exception, UpdateError)
    own: list[str | Path] = ["--certificate", tmp_path / "certificate.pem", "--key", tmp_path / "key.pem"]
    assert run("update", *options, *own).exit_code == 0
    server.stop(None).wait()


@contextmanager
def _alone(device: Device) -> Iterator[None]:
    """Be the only updater, as soon as the one that looks again and again has ended a look."""
    until = time.monotonic() + 60
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(device.home.updating())
                break
            except ConfigError:
                assert time.monotonic() < until
                time.sleep(0.01)
        yield


def test_looking_on_goes_on_after_a_refusal_beside_another_updater_and_while_the_server_is_away(
    device: Device, keys: Keys, tmp_path: Path
) -> None:
    device.delivery.replaced = {"targets.json": b"{}"}
    command = [sys.executable, "-m", "fedstill.cli", "client", "update", "--insecure", "--every", "1s"]
    command += ["--server", device.address, "--class", "pi5", "--home", str(device.home.folder)]
    environment = {**os.environ, "PYTHONPATH": ROOT_FOLDER}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            for _ in range(2):
                assert process.stderr.readline().startswith("fedstill: refused: targets.json: not the file")
            with _alone(device):
                while "another updater is at work" not in process.stderr.readline():
                    assert process.poll() is None
            device.stop()
            while "unavailable" not in process.stderr.readline():
                assert process.poll() is None
        finally:
            process.kill()
    assert device.running() is None


def test_wrong_use_is_one_line(keys: Keys, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "no-root.json").write_text("{}")
    for arguments, reason in [
        (("update", "--server", "a:1", "--class", "c"), "no device here yet"),
        (("predict",), "no device here yet"),
        (("status",), "no device here yet"),
        (("trust", tmp_path / "none.json"), "No such file"),
        (("trust", tmp_path / "no-root.json"), "damaged, not TUF metadata"),
    ]:
        found = run(*arguments, "--home", home)
        assert isinstance(found.exception, ConfigError)
        assert reason in str(found.exception)
    run("trust", keys.folder / "root.json", "--home", home)
    for options, reason in [
        (("--insecure",), "--insecure is for a server on this machine"),
        (("--ca", tmp_path / "none.pem"), "No such file"),
        (("--key", tmp_path / "none.pem"), "belong together"),
        (("--every", "soon"), "as 30m, 1h or 1d"),
        (("--every", "1h", "--once"), "exclude each other"),
    ]:
        found = run("update", "--server", "example.org:1", "--class", "c", "--home", home, *options)
        assert isinstance(found.exception, ConfigError)
        assert reason in str(found.exception)
    assert "letters, digits" in str(run("trust", keys.folder / "root.json", "--home", home, "--id", "../x").exception)
    run("trust", keys.folder / "root.json", "--home", home, "--id", "kitchen-1")
    assert "device           kitchen-1," in run("status", "--home", home).output
    other = run("trust", open_keys(tmp_path / "keys").folder / "root.json", "--home", home, "--id", "cellar-1")
    assert "trusts another root" in str(other.exception)
    assert (home / "root.json").read_bytes() == keys.trust.content
    assert "device           kitchen-1," in run("status", "--home", home).output


def test_nothing_of_it_imports_torch_and_the_supervisor_not_even_numpy() -> None:
    heavy = "('torch', 'ray', 'flwr', 'onnx', 'onnxscript', 'fsspec')"
    light = heavy[:-1] + ", 'numpy', 'onnxruntime', 'grpc', 'tuf')"
    for modules, banned in [
        ("fedstill.cli, client.commands, client.updates.updater, client.predict.worker", heavy),
        ("fedstill.cli, client.commands, client.predict.api, client.updates.watch", light),
    ]:
        code = f"import sys, {modules}; print([name for name in {banned} if name in sys.modules])"
        environment = {**os.environ, "PYTHONPATH": ROOT_FOLDER}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == "[]", modules
