"""A federation over Flower's real processes on the loopback address: TLS, authentication, kills."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from client.enrol import make_key
from client.home import Home
from simulations.device_folders import PROXY, write_device_folders
from simulations.scenario import Scenario, load_scenario

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
PATIENCE = 300
"""Seconds for anything to happen; a machine may be busy."""

SCENARIO = """
name = "two-classes"
task = "simulations.sources:DIGITS"
rounds = 3
devices = 3

[data]
server_samples = 150
guard_samples = 30
proxy_samples = 200
private_samples = 300

[partition]
alpha = 5

[device_classes]
pi5 = { student = "tiny-conv-s" }
zero2w = { student = "tiny-separable-s" }

[teacher]
architecture = "tiny-conv-m"
initial = { epochs = 3, batch = 32, learning_rate = 0.05 }
update = { epochs = 1, batch = 32, learning_rate = 0.02 }

[device]
first_digest = { epochs = 1, batch = 32, learning_rate = 0.05 }
digest = { epochs = 1, batch = 32, learning_rate = 0.05 }
revisit = { epochs = 1, min_steps = 20, batch = 32, learning_rate = 0.05 }

[exchange]
per_round = 60

[students]
distil = { epochs = 1, batch = 32, learning_rate = 0.05 }
calibration_samples = 20

[central]
fit = { epochs = 1, batch = 64, learning_rate = 0.05 }
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fedstill.cli", *arguments]


def fedstill(*arguments: str) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Deployment:
    """The server's and the devices' folders, and the processes that keep them running."""

    def __init__(self, folder: Path, scenario: str = SCENARIO, *, copied: bool = True) -> None:
        """Lay out the folders.

        `copied`: devices are given the proxy set as a file; otherwise they fetch what they need.
        """
        self.folder = folder
        self.copied = copied
        self.server = folder / "server"
        self.file = folder / "two-classes.toml"
        self.file.write_text(scenario)
        self.scenario: Scenario = load_scenario(str(self.file))
        self._running: list[subprocess.Popen[bytes]] = []

    def device(self, number: int) -> Path:
        return self.folder / f"d{number}"

    def start(self, name: str, *arguments: str) -> None:
        """Start a command that goes on until it is told to end; what it says lies in `<name>.out`."""
        with (self.folder / f"{name}.out").open("ab") as output:
            self._running.append(subprocess.Popen(command(*arguments), stdout=output, stderr=subprocess.STDOUT))

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def up(self) -> None:
        """Begin with nothing, end with a fleet that is there."""
        port, enrolment, delivery, *ports = free_ports(3 + self.scenario.devices)
        where = ("--home", str(self.server))
        listen = ["--port", str(port), "--enrolment-port", str(enrolment), "--enrolment-listen", "127.0.0.1"]
        listen += ["--delivery-port", str(delivery)]
        fedstill("server", "init", "--host", "127.0.0.1", *where, *listen)
        self.start("server", "server", "start", *where)
        eventually(lambda: all(map(_listens, (port, enrolment, delivery))), "SuperLink, enrolment and delivery service")
        write_device_folders(self.scenario, self.folder / "data")
        for kind, own in zip(self.scenario.classes_of_devices(), ports, strict=True):
            self.enrol(kind, own)

    def enrol(self, kind: str, port: int) -> int:
        """Enrol one more device, start it, and return its number; the fourth and later ones have no data."""
        number = len(list(self.folder.glob("d[0-9]")))
        data = self.folder / "data" / f"device-{number}" / "data.toml"
        has = ["--data", str(data)] if data.exists() else []
        if has and self.copied:
            has += ["--proxy", str(self.folder / "data" / PROXY)]
        token = fedstill("server", "token", "--class", kind, "--home", str(self.server)).strip()
        home = str(self.device(number))
        said = fedstill("client", "enroll", token, "--home", home, "--port", str(port), *has)
        assert f"device {number} of class {kind}" in said
        self.start(f"device-{number}", "client", "start", "--home", home)
        return number

    def down(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait(PATIENCE)

    def kill(self, home: Path, program: str) -> None:
        os.kill(int((home / "run" / f"{program}.pid").read_text()), signal.SIGKILL)

    def kill_server_app(self) -> None:
        superexec = psutil.Process(int((self.server / "run" / "superexec.pid").read_text()))
        apps = [found for found in superexec.children(recursive=True) if "flwr-serverapp" in " ".join(found.cmdline())]
        assert apps
        for app in apps:
            app.kill()


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One for all tests of a module, which takes longer to begin than they do."""
    found = Deployment(tmp_path_factory.mktemp("d"))
    try:
        found.up()
        yield found
    finally:
        found.down()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of each finished round; nothing of it is a timing."""
    path = folder / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_run_with_kills_and_a_resume_is_the_simulation_undisturbed(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file, home = str(deployment.file), str(deployment.server)
    deployment.start("run", "server", "run", file, "--home", home, "--out", str(out))
    eventually(lambda: len(rows(out)) >= 1, "the first round")
    received = deployment.device(1) / "logs" / "supernode.log"
    eventually(lambda: "ROUND 2]" in received.read_text(), "a message of the second round")
    deployment.kill(deployment.device(1), "supernode")
    deployment.kill(deployment.device(0), "agent")
    eventually(lambda: len(rows(out)) >= 2, "the second round")
    deployment.kill_server_app()
    fedstill("server", "run", "--resume", str(out), "--home", home)

    fedstill("simulate", file, "--out", str(tmp_path / "simulated"), "--workers", "1")
    assert "supernode ended with code -9" in deployment.said("device-1")
    assert "agent ended with code -9" in deployment.said("device-0")
    assert rows(out) == rows(tmp_path / "simulated")
    assert [row["answers"] for row in rows(out)] == [3, 3, 3]
    summary = json.loads((out / "summary.json").read_text())
    simulated = json.loads((tmp_path / "simulated" / "summary.json").read_text())
    for name, facts in summary["device_classes"].items():
        for key in ("devices", "student", "accuracy_devices", "accuracy_released", "refused"):
            assert facts[key] == simulated["device_classes"][name][key]
    for key in ("uplink_bytes", "downlink_bytes"):
        assert summary["wire"][key] == simulated["wire"][key]
    # What the server sent to run on the devices holds no code.
    sent = [path for path in (deployment.device(0) / "flwr" / "apps").rglob("*") if path.is_file()]
    assert {path.name for path in sent if path.suffix == ".py"} == set()
    assert "pyproject.toml" in {path.name for path in sent}


def test_who_is_not_enrolled_gets_nowhere(deployment: Deployment) -> None:
    stranger = Home(deployment.folder / "stranger")
    stranger.folder.mkdir()
    config = Home(deployment.device(0)).config().model_copy(update={"supernode_port": free_ports(1)[0]})
    stranger.config_path.write_text(tomli_w.dumps(config.model_dump()))
    shutil.copy(Home(deployment.device(0)).authority, stranger.authority)
    make_key(stranger.key)
    deployment.start("stranger", "client", "start", "--home", str(stranger.folder))
    eventually(lambda: "supernode ended" in deployment.said("stranger"), "a refusal")
    said = (stranger.logs / "supernode.log").read_text()
    assert "Exit Code: 305" in said
    assert "SuperNode ID" not in said
    fedstill("client", "stop", "--home", str(stranger.folder))


def test_a_revoked_device_is_turned_away(deployment: Deployment) -> None:
    number = deployment.enrol("zero2w", free_ports(1)[0])
    log = deployment.device(number) / "logs" / "supernode.log"
    eventually(lambda: log.exists() and "SuperNode ID" in log.read_text(), "the device's connection")
    fedstill("server", "revoke", str(number), "--home", str(deployment.server))
    assert "revoked" in fedstill("server", "status", "--home", str(deployment.server))
    eventually(lambda: "supernode ended" in deployment.said(f"device-{number}"), "a refusal")
    fedstill("client", "stop", "--home", str(deployment.device(number)))
    with pytest.raises(AssertionError, match=f"device {number} is revoked already"):
        fedstill("server", "revoke", str(number), "--home", str(deployment.server))
