"""Certificates, health, reflection, metrics, and the end of a service."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fedstill.errors import ConfigError
from fedstill.release.manifest import INT8_FILE
from protos.delivery_pb2 import FetchRequest, NewestRequest, Outcome, Telemetry
from protos.delivery_pb2_grpc import DeliveryStub
from server.delivery.logs import JsonFormatter
from server.delivery.records import read_summary
from server.delivery.serve import NAME, Options, credentials

from .conftest import PATIENCE, Authority, Running, metrics

Release = Callable[..., int]
Start = Callable[..., Running]
ASK = NewestRequest(device_class="pi5", device_id="board-1")


def told(sequence: int) -> Telemetry:
    return Telemetry(
        device_id="board-1",
        device_class="pi5",
        sequence=sequence,
        version=1,
        outcome=Outcome.OUTCOME_RUNNING,
        latency_p50_ms=2.5,
    )


def unreachable(stub: DeliveryStub) -> bool:
    try:
        stub.Newest(ASK, timeout=10)
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
    return False


def test_with_a_certificate_devices_that_trust_its_authority_are_served_and_no_others(
    release: Release, start: Start, authority: Authority, stranger: Authority
) -> None:
    release()
    cert, key = authority.issue("server")
    service = start(certificate=cert, key=key)
    assert service.stub(authority).Newest(ASK, timeout=PATIENCE).granted
    assert unreachable(service.stub(stranger))
    assert unreachable(service.stub(None))


def test_with_a_client_authority_each_device_needs_the_certificate_of_its_own_name(
    release: Release, start: Start, authority: Authority, stranger: Authority
) -> None:
    release()
    cert, key = authority.issue("server")
    service = start(certificate=cert, key=key, client_ca=authority.path)
    own = service.stub(authority, authority.issue("board-1"))
    assert own.Newest(ASK, timeout=PATIENCE).granted
    assert own.Report(told(1), timeout=PATIENCE).accepted_sequence == 1
    assert unreachable(service.stub(authority))
    assert unreachable(service.stub(authority, stranger.issue("board-1")))
    other = service.stub(authority, authority.issue("board-2"))
    for call in (lambda: other.Newest(ASK, timeout=PATIENCE), lambda: other.Report(told(2), timeout=PATIENCE)):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_what_can_not_be_served_with_is_one_clear_line(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    cert, key = authority.issue("server")
    _, other_key = stranger.issue("server")
    (tmp_path / "empty").write_text("")

    def wrong(reason: str, **options: object) -> None:
        known: dict[str, object] = {"store": "s", "state": tmp_path, "address": "127.0.0.1:0", **options}
        with pytest.raises(ConfigError, match=reason):
            credentials(Options(**known))  # type: ignore[arg-type]

    wrong("only this machine may be served without a certificate", address="0.0.0.0:0")
    wrong("only this machine may be served", address="[::]:1")
    wrong("not of the form host:port", address="localhost")
    wrong("a certificate needs its key", certificate=cert)
    wrong("a client CA needs both", client_ca=authority.path)
    wrong("No such file", certificate=tmp_path / "none", key=key)
    wrong("unencrypted key", certificate=cert, key=other_key)
    wrong("unencrypted key", certificate=tmp_path / "empty", key=key)
    wrong("unencrypted key", certificate=cert, key=key, client_ca=tmp_path / "empty")


def test_health_says_whether_the_store_can_be_read_and_reflection_names_the_service(
    release: Release, start: Start, tmp_path: Path
) -> None:
    release()
    service = start()
    health = health_pb2_grpc.HealthStub(service.channel(None))

    def becomes(status: int) -> None:
        ends = time.monotonic() + PATIENCE
        while health.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=PATIENCE).status != status:
            assert time.monotonic() < ends
            time.sleep(0.02)

    becomes(health_pb2.HealthCheckResponse.SERVING)
    root = tmp_path / "store" / "roots" / "1.root.json"
    content = root.read_bytes()
    root.write_bytes(b"{")
    becomes(health_pb2.HealthCheckResponse.NOT_SERVING)
    assert service.stub().Newest(ASK, timeout=PATIENCE).granted  # what was read last is still good
    root.write_bytes(content)
    becomes(health_pb2.HealthCheckResponse.SERVING)
    assert NAME in ProtoReflectionDescriptorDatabase(service.channel(None)).get_services()


def test_metrics_are_open_metrics_about_calls_bytes_and_devices(release: Release, start: Start, free: int) -> None:
    release()
    service = start(metrics=f"127.0.0.1:{free}")
    stub = service.stub()
    stub.Newest(ASK, timeout=PATIENCE)
    sent = sum(
        len(chunk.data) for chunk in stub.Fetch(FetchRequest(device_class="pi5", version=1, name=INT8_FILE), timeout=60)
    )
    stub.Report(told(1), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError):
        stub.Report(told(0), timeout=PATIENCE)
    lines = set(metrics(free).splitlines())
    assert {
        'fedstill_calls_total{code="OK",method="Newest"} 1.0',
        'fedstill_calls_total{code="INVALID_ARGUMENT",method="Report"} 1.0',
        f'fedstill_sent_bytes_total{{device_class="pi5",version="1"}} {float(sent)}',
        'fedstill_devices{device_class="pi5",outcome="running",version="1"} 1.0',
        'fedstill_device_latency_ms_p50{device_class="pi5",version="1"} 2.5',
        "# EOF",
    } <= lines


def test_a_port_in_use_is_one_clear_line(release: Release, start: Start) -> None:
    release()
    port = start().port
    with pytest.raises(ConfigError, match="is the port in use"):
        start(address=f"127.0.0.1:{port}")


def test_a_log_line_is_json_whatever_is_in_it() -> None:
    record = logging.LogRecord("a", logging.WARNING, "", 0, "paused", None, None)
    record.reason = 'two\nlines "}'
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["level"], entry["message"], entry["reason"]) == ("warning", "paused", 'two\nlines "}')
    assert "\n" not in JsonFormatter().format(record)


def started(tmp_path: Path, cert: Path, key: Path) -> tuple["subprocess.Popen[str]", int]:
    """Start the command in a process of its own, and return it and its port."""
    command = [sys.executable, "-m", "fedstill.cli", "server", "deliver", str(tmp_path / "store")]
    options = {"--address": "127.0.0.1:0", "--cert": cert, "--key": key, "--state": tmp_path / "state"}
    process = subprocess.Popen(
        [*command, *(str(part) for pair in options.items() for part in pair)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["message"] == "serving":
            return process, int(json.loads(line)["port"])
    raise AssertionError(f"the service ended with {process.wait()}")


def test_a_killed_service_loses_nothing_that_it_acknowledged_and_a_told_one_finishes_downloads(
    release: Release, authority: Authority, tmp_path: Path
) -> None:
    release(content=b"model" * 4000)
    cert, key = authority.issue("server")
    trusted = grpc.ssl_channel_credentials(authority.path.read_bytes())
    process, port = started(tmp_path, cert, key)
    with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
        assert DeliveryStub(channel).Report(told(5), timeout=PATIENCE).accepted_sequence == 5
        process.kill()
        process.communicate(timeout=PATIENCE)
    (found,) = read_summary(tmp_path / "state" / "telemetry.sqlite").found
    assert (found.devices, found.latency_ms_p50) == (1, 2.5)

    process, port = started(tmp_path, cert, key)
    with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
        stub = DeliveryStub(channel)
        assert stub.Report(told(3), timeout=PATIENCE).accepted_sequence == 5
        chunks = stub.Fetch(FetchRequest(device_class="pi5", version=1, name=INT8_FILE), timeout=PATIENCE)
        content = next(iter(chunks)).data
        process.send_signal(signal.SIGTERM)
        content += b"".join(chunk.data for chunk in chunks)
        assert content == (tmp_path / "store" / "pi5" / "1" / INT8_FILE).read_bytes()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
