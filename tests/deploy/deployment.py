"""A server and its devices as real processes on the loopback address, for the tests to disturb."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from client.home import Home
from fedstill.errors import ConfigError
from server.deployment.control import Control
from server.deployment.home import ServerHome
from simulations.device_folders import PROXY, write_device_folders
from simulations.scenario import Scenario, load_scenario

PATIENCE = 900
"""Seconds for anything to happen; a machine may be busy."""

FIRST_PORT, PORTS = 20000, 1000
"""Of the first process of tests, and how many each has."""

ALL = "exchange.quorum=1"
"""For runs that are to come to what the simulation comes to: no round begins while a device is gone for a moment."""

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


def _ports() -> Iterator[int]:
    """Count through ports of this process of tests, or of what is none; the kernel gives nobody any of them."""
    first = FIRST_PORT + PORTS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw"))
    for number in itertools.count(os.getpid()):
        yield first + number % PORTS


def free_ports(count: int) -> list[int]:
    return list(itertools.islice((port for port in _PORTS if not listens(port)), count))


class Deployment:
    """The server's and the devices' folders, and the processes that keep them running."""

    def __init__(self, folder: Path, devices: int = 3, scenario: str = SCENARIO, *, copied: bool = True) -> None:
        """Lay out the folders.

        Args:
            folder: where everything lies.
            devices: how many.
            scenario: of their runs, for three devices.
            copied: whether they are given the proxy set as a file; else they fetch what they need.
        """
        self.folder = folder
        self.copied = copied
        self.server = folder / "server"
        self.file = folder / "two-classes.toml"
        self.file.write_text(scenario.replace("devices = 3", f"devices = {devices}"))
        self.scenario: Scenario = load_scenario(str(self.file))
        self.port = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def device(self, number: int) -> Path:
        return self.folder / f"d{number}"

    def start(self, name: str, *arguments: str, within: tuple[str, ...] = ()) -> None:
        """Start a command that goes on until it is told to end; what it says lies in `<name>.out`.

        Args:
            name: by which to find it again.
            arguments: of `fedstill`.
            within: command line that it is appended to.
        """
        with (self.folder / f"{name}.out").open("ab") as output:
            words = [*within, *command(*arguments)]
            self._running[name] = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)

    def start_other(self, name: str, module: str, *arguments: str) -> None:
        """Start a module of the tests, which goes on until it is told to end."""
        with (self.folder / f"{name}.out").open("ab") as output:
            words = [sys.executable, "-m", module, *arguments]
            self._running[name] = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)

    def after(self, shift: str, *arguments: str) -> str:
        """Run a command, which fails, with a clock that is off by a shift such as +1000d, and return what it said."""
        words = ["faketime", "-f", shift, *command(*arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return " ".join(done.stderr.split())

    def start_device(self, number: int, within: tuple[str, ...] = ()) -> None:
        self.start(f"device-{number}", "client", "start", "--home", str(self.device(number)), within=within)

    @contextmanager
    def restarted(self, number: int, within: tuple[str, ...] = (), port: int | None = None) -> Iterator[None]:
        """Let a device run in another way, and as it did before after all.

        Args:
            number: of the device.
            within: command line that the device's own is appended to.
            port: of the loopback address, where the server seems to be; None: where it is.
        """
        home = Home(self.device(number))
        usual = home.config_path.read_text()
        self.stop_device(number)
        try:
            if port is not None:
                changed = home.config().model_copy(update={"superlink": f"127.0.0.1:{port}"})
                home.config_path.write_text(tomli_w.dumps(changed.model_dump()))
            self.start_device(number, within)
            yield
        finally:
            home.config_path.write_text(usual)
            self.stop_device(number)
            self.start_device(number)

    def stop_device(self, number: int) -> None:
        fedstill("client", "stop", "--home", str(self.device(number)))
        self._running.pop(f"device-{number}").wait(PATIENCE)

    def cut_power(self, number: int) -> None:
        """Let a device end as it does without power: everything at once, and nothing in its run folder after that."""
        supervisor = self._running.pop(f"device-{number}")
        for process in [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        supervisor.wait(PATIENCE)
        shutil.rmtree(self.device(number) / "run")

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def log(self, number: int, program: str) -> str:
        path = self.device(number) / "logs" / f"{program}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def pid(self, name: str) -> int:
        """Return the process of a command that was started."""
        return self._running[name].pid

    def serve(self) -> None:
        """Begin with nothing, end with a server that no device knows."""
        self.port, enrolment, delivery = free_ports(3)
        where = ("--home", str(self.server))
        listen = ["--port", str(self.port), "--enrolment-port", str(enrolment), "--enrolment-listen", "127.0.0.1"]
        listen += ["--delivery-port", str(delivery)]
        fedstill("server", "init", "--host", "127.0.0.1", *where, *listen)
        self.start("server", "server", "start", *where)
        places = (self.port, enrolment, delivery)
        eventually(lambda: all(map(listens, places)), "SuperLink, enrolment and delivery service")

    def up(self) -> None:
        """Begin with nothing, end with a fleet that is there."""
        self.serve()
        write_device_folders(self.scenario, self.folder / "data")
        ports = free_ports(self.scenario.devices)
        for number, (kind, own) in enumerate(zip(self.scenario.classes_of_devices(), ports, strict=True)):
            assert self.enrol(kind, own, data_of=number) == number
            self.start_device(number)

    def enrol(self, kind: str, port: int, data_of: int | None = None) -> int:
        """Enrol one more device, with the data of a device of the scenario or none, and return its number."""
        number = len(list(self.folder.glob("d[0-9]*")))
        data = self.folder / "data" / f"device-{data_of}" / "data.toml"
        has = [] if data_of is None else ["--data", str(data)]
        if has and self.copied:
            has += ["--proxy", str(self.folder / "data" / PROXY)]
        token = fedstill("server", "token", "--class", kind, "--home", str(self.server)).strip()
        said = fedstill("client", "enroll", token, "--home", str(self.device(number)), "--port", str(port), *has)
        assert f"device {number} of class {kind}" in said
        return number

    def connected(self, number: int) -> bool:
        """Tell whether a device's present SuperNode was let in by the SuperLink."""
        said, process = self.log(number, "supernode"), running(self.device(number), "supernode")
        return 0 <= said.rfind(f"Started server process [{process}]") < said.rfind("SuperNode ID:")

    def whole(self) -> bool:
        """Tell whether all devices that were started are there, whatever a test did to them or to the SuperLink."""
        there = [name.removeprefix("device-") for name in self._running if name.startswith("device-")]
        if not all(map(self.connected, map(int, there))):
            return False
        try:
            states = list(Control(ServerHome(self.server)).nodes().values())
        except ConfigError:
            return False
        return states.count("online") == len(there)

    def begin(self, out: Path, *changes: str) -> None:
        """Begin a run, of the scenario with changes such as `rounds=4`, as soon as the fleet is there."""
        eventually(self.whole, "a whole fleet")
        sets = [word for change in changes for word in ("--set", change)]
        home = ("--home", str(self.server))
        self.start(f"run-{out.parent.name}", "server", "run", str(self.file), *home, "--out", str(out), *sets)

    def over(self, out: Path) -> bool:
        return self._running[f"run-{out.parent.name}"].poll() is not None

    def ended(self, out: Path) -> int:
        """Wait for the end of a run and return its exit code."""
        return self._running.pop(f"run-{out.parent.name}").wait(PATIENCE)

    def resume(self, out: Path) -> None:
        fedstill("server", "run", "--resume", str(out), "--home", str(self.server))

    def down(self) -> None:
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            process.wait(PATIENCE)

    def kill(self, home: Path, program: str) -> None:
        os.kill(int((home / "run" / f"{program}.pid").read_text()), signal.SIGKILL)

    def children(self, home: Path, program: str) -> list[psutil.Process]:
        """Return the processes that a program started."""
        parent = psutil.Process(int((home / "run" / f"{program}.pid").read_text()))
        return [*parent.children(recursive=True)]

    def kill_children(self, home: Path, program: str, named: str) -> int:
        """Kill those of the processes that a program started whose command line holds a word; return their number."""
        killed = 0
        for found in self.children(home, program):
            with suppress(psutil.NoSuchProcess):
                if named in " ".join(found.cmdline()):
                    found.kill()
                    killed += 1
        return killed


def running(home: Path, program: str) -> int | None:
    """Return the process of a program; None: it does not run."""
    try:
        found = psutil.Process(int((home / "run" / f"{program}.pid").read_text()))
        return None if found.status() == psutil.STATUS_ZOMBIE else found.pid
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


_PORTS = _ports()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of each finished round; nothing of it is a timing."""
    path = folder / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def after_round(out: Path, number: int) -> None:
    """Wait until a run has finished a round."""
    eventually(lambda: len(rows(out)) >= number, f"the end of round {number} of {out}")
