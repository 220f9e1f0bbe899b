"""An installed device and an app that means it ill, for real: separate users, a server, Flower between them."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from client.home import SYSTEM_HOME, Home
from client.install.layout import Users
from server.deployment.control import Control
from server.deployment.home import ServerHome
from simulations.device_folders import write_device_folders
from tests.deploy.deployment import PATIENCE, Deployment, eventually, fedstill, free_ports, listens, rows

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of other users"),
    pytest.mark.skipif(SYSTEM_HOME.exists(), reason="a device is installed on this machine"),
]
ROOT = Path(__file__).resolve().parents[2]
USERS = Users()
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
AGENT = "/fedstill.agent.v1.Agent"
AS_A_SERVICE = ["setpriv", "--bounding-set", "-all,+setuid,+setgid,+kill", "--inh-caps", "-all", "--no-new-privs", "--"]
"""What the unit leaves of root's rights."""


def make_environment(place: Path) -> Path:
    """Make a Python environment that all users can run, with the packages of this one; this may be in root's home."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([f"/usr/bin/{name}", "-m", "venv", "--without-pip", place], check=True)
    own, packages = place / "lib" / name / "site-packages", sysconfig.get_path("purelib")
    (own / "borrowed.pth").write_text(f"{packages}\n")
    for room in ("fedstill", "protos", "server", "client", "simulations"):
        shutil.copytree(ROOT / room, own / room)
    (place / "bin" / "flower-supernode").touch()  # is looked for, and not run
    return place / "bin" / "python"


class Installed:
    """A server, and a device of separate users."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.deployment = Deployment(folder, devices=2)
        self.python = make_environment(place / "env")
        self.home = Home(place / "device")
        self.server = ServerHome(self.deployment.server)

    def up(self) -> None:
        port, enrolment, delivery, own = free_ports(4)
        where = ("--home", str(self.server.folder))
        listen = ["--port", str(port), "--enrolment-port", str(enrolment), "--enrolment-listen", "127.0.0.1"]
        listen += ["--delivery-port", str(delivery)]
        fedstill("server", "init", "--host", "127.0.0.1", *where, *listen)
        self.deployment.start("server", "server", "start", *where)
        eventually(lambda: all(map(listens, (port, enrolment, delivery))), "the server's services")
        write_device_folders(self.deployment.scenario, self.deployment.folder / "data")
        token = fedstill("server", "token", "--class", "pi5", *where).strip()
        source = self.deployment.device(0)
        fedstill("client", "enroll", token, "--home", str(source), "--port", str(own))
        self.install(source)

    def client(self, *arguments: str, user: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of the installed device to its end."""
        return subprocess.run(
            [str(self.python), "-P", "-m", "fedstill.cli", "client", *arguments, "--home", str(self.home.folder)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=ENVIRONMENT,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )

    def install(self, source: Path) -> None:
        """Install as an owner would, with data in the folder that is made for them."""
        done = self.client("install", "--no-service", "--from", str(source))
        assert done.returncode == 0, done.stderr
        assert not (source / "supernode.key").exists()
        data = self.home.folder / "data"
        shutil.copytree(self.deployment.folder / "data", data / "own")
        done = self.client("install", "--no-service", "--data", str(data / "own" / "device-0" / "data.toml"))
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        log = self.home.logs / "supernode.log"
        before = _connections(log)
        with (self.deployment.folder / "device.out").open("ab") as output:
            started = subprocess.Popen(
                [*AS_A_SERVICE, self.python, "-P", "-m", "fedstill.cli", "client", "start", "--home", self.home.folder],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "SECRET_OF_ROOT": "1"},
            )
        self.deployment._running["device"] = started
        eventually(lambda: _connections(log) > before, "the device's connection")
        eventually(self.home.socket.exists, "the agent's socket")

    def kill(self) -> None:
        """Kill the supervisor alone."""
        supervisor = self.deployment._running.pop("device")
        os.kill(psutil.Process(self.process("agent")).ppid(), signal.SIGKILL)
        supervisor.wait(PATIENCE)

    def process(self, program: str) -> int:
        return int((self.home.run / f"{program}.pid").read_text())

    def down(self) -> None:
        self.deployment.down()
        if self.home.users.exists():
            done = self.client("uninstall", "--purge")
            assert done.returncode == 0, done.stderr


def _connections(log: Path) -> int:
    return log.read_text().count("SuperNode ID:") if log.exists() else 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))  # pytest's own is closed to other users
    place.chmod(0o711)
    try:
        found = Installed(tmp_path_factory.mktemp("d"), place)
        try:
            found.up()
            found.start()
            yield found
        finally:
            found.down()
    finally:
        shutil.rmtree(place)


def send_hostile(installed: Installed, folder: Path, targets: dict[str, Any]) -> dict[str, Any]:
    """Run the hostile app on the device, as whoever controls the server can, and return what it found."""
    bundle = folder / "bundle"
    bundle.mkdir()
    shutil.copy(Path(__file__).parent / "intruder.py", bundle)
    components = {"serverapp": "intruder:server", "clientapp": "intruder:client"}
    app = {"publisher": "stranger", "components": components, "config": {"targets": "", "out": ""}}
    project = {"name": "hostile", "version": "1.0.0", "description": "Tries its luck."}
    (bundle / "pyproject.toml").write_text(tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}}))
    out = folder / "found.json"
    Control(installed.server).start(bundle, {"targets": json.dumps(targets), "out": str(out)})
    eventually(out.exists, "the hostile app's report")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def attempts(installed: Installed) -> list[tuple[str, str]]:
    """Return what the app is to try; each is there, and root could do it."""
    home, agent = installed.home, installed.process("agent")
    data, (state,) = home.folder / "data", (path for path in home.state.iterdir() if path.is_dir())
    files = [
        data / "own" / "device-0" / "data.toml",
        state / "plan.json",
        home.config_path,
        home.key,
        home.release / "private.key",
    ]
    folders = [data, data / "own", home.state, state, home.parcels, home.release, home.logs, home.flwr, home.folder]
    proc = [f"/proc/{agent}/{name}" for name in ("mem", "environ", "maps", "auxv", "io")]
    supernode = f"/proc/{installed.process('supernode')}/mem"
    others = [agent, installed.process("supernode"), psutil.Process(agent).ppid()]
    return [
        *(("read", str(path)) for path in (*files, *proc, supernode)),
        *(("list", str(path)) for path in (*folders, f"/proc/{agent}/fd", f"/proc/{agent}/map_files")),
        *(("write", str(path)) for path in (home.users, home.authority, home.secret, *files)),
        *(("plant", str(path)) for path in (home.agent_run, home.run, home.folder, home.state)),
        ("remove", str(home.socket)),
        ("connect", str(home.release / "predict.sock")),
        *((kind, str(process)) for process in others for kind in ("kill", "trace", "link")),
        *(("become", str(pwd.getpwnam(name).pw_uid)) for name in ("root", USERS.agent, USERS.node)),
    ]


def test_an_ordinary_run_works_and_a_hostile_app_gets_nowhere(installed: Installed, tmp_path: Path) -> None:
    home, out = installed.home, tmp_path / "run"
    run = ("server", "run", str(installed.deployment.file), "--home", str(installed.server.folder), "--out", str(out))
    fedstill(*run, "--set", "rounds=2")
    assert [row["answers"] for row in rows(out)] == [1, 1]
    assert any(home.parcels.iterdir())  # what the agent fetched by itself
    processes = {name: installed.process(name) for name in ("agent", "supernode", "apps")}
    owners = {name: psutil.Process(number).username() for name, number in processes.items()}
    assert owners == {"agent": USERS.agent, "supernode": USERS.node, "apps": USERS.app}
    assert psutil.Process(processes["apps"]).num_threads() == 1  # a fork has no thread but the one that forks

    agent = pwd.getpwnam(USERS.agent)
    for name in ("private.key", "predict.sock"):
        (home.release / name).touch(mode=0o600)
    os.unlink(home.release / "predict.sock")
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(home.release / "predict.sock"))
        served.listen()
        for path in home.release.iterdir():
            os.chown(path, agent.pw_uid, agent.pw_gid)
        (home.release / "predict.sock").chmod(0o666)  # even then: its folder is closed
        wanted = attempts(installed)
        methods = [f"{AGENT}/Devices", f"{AGENT}/Answer", f"{AGENT}/Data", "/grpc.reflection.v1.ServerReflection/Info"]
        found = send_hostile(installed, tmp_path, {"attempts": wanted, "socket": str(home.socket), "methods": methods})

    app = pwd.getpwnam(USERS.app)
    assert (found.pop("uid"), found.pop("groups")) == (app.pw_uid, [])
    status = dict(line.split(":\t", 1) for line in found.pop("status").splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["CapEff"], status["CapPrm"]) == ("1", "0" * 16, "0" * 16)
    assert "SECRET_OF_ROOT" not in found.pop("environment")
    calls = {method: found.pop(f"call {method}") for method in methods}
    # The round's calls are there, and refuse what is of no known protocol; there are no others.
    assert list(calls.values()) == ["FAILED_PRECONDITION", "FAILED_PRECONDITION", "UNIMPLEMENTED", "UNIMPLEMENTED"]
    assert found.keys() == {f"{kind} {target}" for kind, target in wanted}
    assert {what: how for what, how in found.items() if how not in ("EACCES", "EPERM")} == {}
    for kind, target in wanted:  # what was refused was there
        if kind in ("read", "list", "write") and not target.endswith("/mem"):
            assert os.path.exists(target), target
    assert processes == {name: installed.process(name) for name in processes}
    assert all(psutil.pid_exists(number) for number in processes.values())

    fedstill(*run[:-1], str(tmp_path / "again"), "--set", "rounds=1")
    assert [row["answers"] for row in rows(tmp_path / "again")] == [1]


def test_a_device_whose_isolation_does_not_hold_does_not_start(installed: Installed) -> None:
    home = installed.home
    for path, mode in ((home.state, 0o755), (home.key, 0o444), (home.agent_run, 0o2777)):
        right = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        try:
            done = installed.client("start")
        finally:
            path.chmod(right)
        assert done.returncode == 2
        assert f"{path}: has mode {mode:o}, not {right:o}" in done.stderr


def test_data_that_the_apps_user_could_read_are_not_installed(installed: Installed) -> None:
    own = installed.home.folder.parent / "open" / "device-0"
    shutil.copytree(installed.deployment.folder / "data", own.parent)
    done = installed.client("install", "--no-service", "--data", str(own / "data.toml"))
    assert done.returncode == 2
    assert f"user {USERS.node}, who runs" in done.stderr
    assert installed.home.config().data != str(own / "data.toml")


def test_who_is_not_root_is_told(installed: Installed) -> None:
    for words in (("start",), ("status",), ("stop",), ("doctor",), ("install", "--no-service"), ("uninstall",)):
        done = installed.client(*words, user=USERS.app)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "sudo" in done.stderr
        assert "Traceback" not in done.stderr


def test_what_was_started_ends_with_the_supervisor(installed: Installed) -> None:
    programs = [installed.process(name) for name in ("agent", "supernode", "apps")]
    installed.kill()
    eventually(lambda: not any(psutil.pid_exists(number) for number in programs), "their end")
    installed.start()  # for the tests to come
