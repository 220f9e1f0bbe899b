"""No call leaves for hosts that the user did not name: every process's connections as the kernel sees them."""

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.deploy.deployment import PATIENCE, SCENARIO, Deployment, command, eventually, rows

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
NAMED = {"127.0.0.1", "::1"}
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def traced(trace: Path, arguments: list[str]) -> list[str]:
    """Return a command that notes where it and all that it starts connect to."""
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", CALLS, "-e", "signal=none", "-o", str(trace), *arguments]


def reached(trace: Path) -> set[str]:
    """Return the addresses that were connected to or sent to, or tried."""
    found = {first or second for first, second in ADDRESS.findall(trace.read_text(errors="replace"))}
    return {str(ipaddress.ip_address(address)) for address in found}


def test_the_guard_sees_what_leaves(tmp_path: Path) -> None:
    code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.7', 9))"
    subprocess.run(traced(tmp_path / "trace", ["sh", "-c", f'python3 -c "{code}"']), timeout=PATIENCE, check=False)
    assert reached(tmp_path / "trace") == {"192.0.2.7"}


def test_a_simulation_calls_nobody(tmp_path: Path) -> None:
    file, trace = tmp_path / "two-classes.toml", tmp_path / "trace"
    file.write_text(SCENARIO)
    words = ("simulate", str(file), "--set", "rounds=1", "--out", str(tmp_path / "out"), "--workers", "2")
    subprocess.run(traced(trace, command(*words)), capture_output=True, timeout=2 * PATIENCE, check=True)
    assert (tmp_path / "out" / "summary.json").exists()
    assert reached(trace) == set()


class Traced(Deployment):
    """A deployment of two devices whose processes are watched from the first one on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, devices=2)

    def start(self, name: str, *arguments: str, within: tuple[str, ...] = ()) -> None:
        super().start(name, *arguments, within=(*traced(self.folder / f"{name}.trace", []), *within))

    def down(self) -> None:
        for process in reversed(self._running.values()):  # strace hands no signal on, and ends with what it started
            for program in psutil.Process(process.pid).children():
                program.terminate()
        super().down()


def test_server_and_device_call_each_other_and_nobody_else(tmp_path: Path) -> None:
    deployment, out = Traced(tmp_path), tmp_path / "run"
    try:
        deployment.up()
        deployment.begin(out, "rounds=1")
        eventually((out / "summary.json").exists, "the run's end")
    finally:
        deployment.down()
    assert [row["answers"] for row in rows(out)] == [2]
    for name in ("server", "device-0", "device-1", f"run-{tmp_path.name}"):
        assert reached(tmp_path / f"{name}.trace") <= NAMED, name
    assert reached(tmp_path / "device-0.trace") == {"127.0.0.1"}
