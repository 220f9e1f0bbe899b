"""nginx with the proxy's own configuration before a real SuperLink: devices get through, a run does not."""

import http.client
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from fedstill.errors import ConfigError
from protos.delivery_pb2 import NewestRequest
from protos.delivery_pb2_grpc import DeliveryStub
from server.deployment.bundle import KEYS, write_bundle
from server.deployment.control import Control
from server.deployment.home import ServerHome
from tests.deploy.deployment import PATIENCE, command, eventually, fedstill, free_ports, listens
from tests.deploy.nginx import start_nginx

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]
BY_WAY_OF = (
    "/v1/control/start-run",
    "//v1/control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2fcontrol%2fstart-run",
    "/v1/fleet/;/../../control/start-run",
    "/v1/fleet/get-run/../../control/start-run",
    "/v1/./control/start-run",
    "/V1/CONTROL/START-RUN",
    "/v1%2fcontrol/start-run",
    "https://localhost/v1/control/start-run",
    "/v1/runtime/create-task",
    "/v1/fleet",
    "/health",
    "/openapi.json",
)


@dataclass(frozen=True)
class Deployed:
    home: ServerHome
    public: int

    def post(self, port: int, path: str) -> int:
        """Return the status of a request whose path nobody has normalized."""
        context = ssl.create_default_context(cafile=str(self.home / "ca.crt"))
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
        try:
            connection.request("POST", path, b"", {"Content-Type": "application/protobuf"})
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("proxy")
    ports = dict(zip(("public", "superlink", "enrolment", "delivery"), free_ports(4), strict=True))
    home = ServerHome(folder / "server")
    public = ("--public-port", str(ports["public"]), "--port", str(ports["superlink"]))
    inner = ("--enrolment-port", str(ports["enrolment"]), "--delivery-port", str(ports["delivery"]))
    fedstill("server", "init", "--host", "localhost", "--home", str(home.folder), *public, *inner)
    with (folder / "out").open("wb") as out:
        running = [
            subprocess.Popen(command("server", "start", "--home", str(home.folder)), stdout=out, stderr=out),
            start_nginx(folder, home.folder, ports),
        ]
    try:
        eventually(lambda: all(map(listens, ports.values())), "the server and the proxy")
        assert running[1].poll() is None, (folder / "nginx.out").read_text()
        yield Deployed(home, ports["public"])
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(PATIENCE)


def test_a_run_is_begun_at_the_superlink_and_not_through_the_proxy(deployed: Deployed, tmp_path: Path) -> None:
    outside = ServerHome(tmp_path / "outside")
    shutil.copytree(deployed.home.folder, outside.folder, ignore=shutil.ignore_patterns("run", "*.db*"))
    told = (
        (outside / "server.toml")
        .read_text()
        .replace(f"port = {deployed.home.config().port}\n", f"port = {deployed.public}\n", 1)
    )
    (outside / "server.toml").write_text(told)
    assert outside.config().control == f"127.0.0.1:{deployed.public}"
    bundle, config = write_bundle(tmp_path / "bundle"), dict.fromkeys(KEYS, "")
    with pytest.raises(ConfigError, match="did not do it"):
        Control(outside).start(bundle, config)
    assert Control(deployed.home).runs() == []
    begun = Control(deployed.home).start(bundle, config)
    assert [run.run_id for run in Control(deployed.home).runs()] == [begun]


@pytest.mark.parametrize("path", BY_WAY_OF)
def test_no_spelling_of_another_path_gets_through(deployed: Deployed, path: str) -> None:
    assert deployed.post(deployed.public, path) in (400, 404, 405)


def test_the_paths_are_there_behind_the_proxy(deployed: Deployed) -> None:
    port = deployed.home.config().port
    assert deployed.post(port, "/v1/control/list-runs") == 200
    # An unsigned request reaches the fleet's calls and is refused there.
    assert deployed.post(port, "/v1/fleet/pull-messages") == 401
    assert deployed.post(deployed.public, "/v1/fleet/pull-messages") == 401


def test_enrolment_answers_through_the_proxy(deployed: Deployed) -> None:
    context = ssl.create_default_context(cafile=str(deployed.home / "ca.crt"))
    connection = http.client.HTTPSConnection("localhost", deployed.public, timeout=PATIENCE, context=context)
    connection.request("GET", "/ca.crt")
    assert connection.getresponse().read() == (deployed.home / "ca.crt").read_bytes()
    connection.request("POST", "/v1/enroll", b'{"token": "none", "public_key": "none"}')
    answer = connection.getresponse()
    assert (answer.status, b"public key" in answer.read()) == (403, True)
    connection.close()


def test_the_delivery_service_answers_through_the_proxy_and_its_reflection_does_not(deployed: Deployed) -> None:
    proof = grpc.ssl_channel_credentials((deployed.home / "ca.crt").read_bytes())
    with grpc.secure_channel(f"localhost:{deployed.public}", proof) as channel:
        asked = NewestRequest(device_id="none", device_class="pi4")
        answer = DeliveryStub(channel).Newest(asked, timeout=PATIENCE)
        assert (answer.granted, bool(answer.reason)) == (False, True)
        with pytest.raises(grpc.RpcError) as closed:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
        assert closed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_device_connects_through_the_proxy(deployed: Deployed, tmp_path: Path) -> None:
    token = fedstill("server", "token", "--class", "pi4", "--home", str(deployed.home.folder)).strip()
    own = str(free_ports(1)[0])
    fedstill("client", "enroll", token, "--home", str(tmp_path / "device"), "--port", own)
    assert f":{deployed.public}" in (tmp_path / "device" / "device.toml").read_text()
    with (tmp_path / "out").open("wb") as out:
        device = subprocess.Popen(
            command("client", "start", "--home", str(tmp_path / "device")), stdout=out, stderr=out
        )
    try:
        eventually(lambda: "online" in Control(deployed.home).nodes().values(), "the device is online")
    finally:
        device.send_signal(signal.SIGTERM)
        device.wait(PATIENCE)
