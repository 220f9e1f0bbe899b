"""The compose file as it is, with Compose 1.29 or 2: from `server init` to a finished run of a device outside."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab.engine import connect
from fedstill.errors import ConfigError
from fedstill.invitation import Invitation
from simulations.device_folders import PROXY, write_device_folders
from simulations.scenario import load_scenario
from tests.deploy.deployment import PATIENCE, command, free_ports

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]
DEPLOY = Path(__file__).parents[2] / "deploy"
SETTINGS = (
    "rounds=1",
    "devices=4",  # as many as the scenario has classes; one of them takes part
    "data.private_samples=160",
    "data.proxy_samples=60",
    "partition.alpha=5",
    "exchange.per_round=30",
    "teacher.initial.epochs=3",
    "teacher.update.epochs=1",
    "device.first_digest.epochs=1",
    "device.digest.epochs=1",
    "device.revisit.epochs=1",
    "students.distil.epochs=1",
    "students.calibration_samples=20",
    "central.fit.epochs=1",
)
HEALTHY = ("superlink", "enrolment", "delivery", "metrics", "proxy")


def call(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose() -> list[str]:
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither docker compose nor docker-compose is installed")


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The server side, up and healthy; with what its commands have to know."""
    try:
        client = connect()
    except ConfigError as error:
        pytest.skip(str(error))
    tool = [*compose(), "-f", str(DEPLOY / "compose.yaml")]
    *ports, metrics, delivered = [str(port) for port in free_ports(5)]
    names = ("FEDSTILL_PORT", "FEDSTILL_ENROLMENT_PORT", "FEDSTILL_DELIVERY_PORT")
    own = {"COMPOSE_PROJECT_NAME": "fedstilltest", **dict(zip(names, ports, strict=True))}
    own |= {"FEDSTILL_METRICS": f"127.0.0.1:{metrics}", "FEDSTILL_DELIVERY_METRICS": f"127.0.0.1:{delivered}"}
    down = (*tool, "down", "--volumes", "--remove-orphans")
    call(*down, environment=own)  # of a test that was killed
    try:
        fedstill = str(DEPLOY / "fedstill")
        call(fedstill, "server", "init", "--host", "localhost", "--public-port", ports[0], environment=own)
        call(*tool, "up", "-d", environment=own)
        deadline = time.monotonic() + PATIENCE
        while True:
            found = {
                one.labels["com.docker.compose.service"]: one.attrs["State"].get("Health", {}).get("Status")
                for one in client.containers.list(filters={"label": "com.docker.compose.project=fedstilltest"})
            }
            if all(found.get(name) == "healthy" for name in HEALTHY) and "superexec" in found:
                break
            assert time.monotonic() < deadline, found
            time.sleep(2)
        yield own
    finally:
        call(*down, environment=own)
        client.close()


def metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as told:
        return bytes(told.read()).decode()


def test_a_device_outside_takes_part_in_a_run_of_the_compose_server(
    environment: dict[str, str], tmp_path: Path
) -> None:
    fedstill = str(DEPLOY / "fedstill")
    token = call(fedstill, "server", "token", "--class", "pi4", environment=environment).strip()
    # The token names port 8001, which a test doesn't take.
    invitation = dataclasses.replace(
        Invitation.decode(token), address=f"localhost:{environment['FEDSTILL_ENROLMENT_PORT']}"
    )
    write_device_folders(load_scenario("digits", SETTINGS), tmp_path / "data")
    home = ["--home", str(tmp_path / "device")]
    data = ["--data", str(tmp_path / "data" / "device-0" / "data.toml"), "--proxy", str(tmp_path / "data" / PROXY)]
    own = str(free_ports(1)[0])
    call(*command("client", "enroll"), invitation.encode(), *home, *data, "--port", own, environment={})
    with (tmp_path / "out").open("wb") as out:
        device = subprocess.Popen(command("client", "start", *home), stdout=out, stderr=out)
    try:
        settings = [part for change in SETTINGS for part in ("--set", change)]
        told = call(fedstill, "server", "run", "digits", *settings, environment=environment)
        assert "round 1: 1 answers" in told
        assert "done: /var/lib/fedstill/server/runs/digits-" in told
        assert "online" in call(fedstill, "server", "status", environment=environment)
        text = metrics(environment["FEDSTILL_METRICS"])
        assert 'fedstill_fleet_devices{device_class="pi4",state="active"} 1.0' in text
        assert "fedstill_run_finished 1.0" in text
        assert "fedstill_rollout_pauses_total 0.0" in metrics(environment["FEDSTILL_DELIVERY_METRICS"])
    finally:
        device.send_signal(signal.SIGTERM)
        device.wait(PATIENCE)


def test_nothing_is_published_but_the_proxy_and_to_this_machine_the_metrics(environment: dict[str, str]) -> None:
    shown = call(
        "docker",
        "ps",
        "--filter",
        "label=com.docker.compose.project=fedstilltest",
        "--format",
        "{{json .}}",
        environment={},
    )
    ports = {one["Names"]: one["Ports"] for one in map(json.loads, shown.splitlines())}
    published = {name: text for name, text in ports.items() if "->" in text}
    assert len(published) == 1
    (text,) = published.values()
    mapped = [part.split("->") for part in text.split(", ")]
    assert {to for address, to in mapped if not address.startswith("127.0.0.1:")} == {"8443/tcp"}
    assert {to for address, to in mapped if address.startswith("127.0.0.1:")} == {"9150/tcp", "9464/tcp"}
    with socket.socket() as attempt:
        attempt.settimeout(10)
        address = call(
            "docker",
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            *published,
            environment={},
        ).strip()
        assert attempt.connect_ex((address, 8000)) != 0
