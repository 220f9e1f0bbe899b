import multiprocessing
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResultStatus

from client import apps
from client.apps import Forking, listeners
from client.home import Home

OWN = os.getuid()


@pytest.fixture(autouse=True)
def flwr_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where apps are installed: not the user's own folder."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    return tmp_path / "flwr"


@pytest.fixture
def port() -> Iterator[int]:
    """A port where this process listens, and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def asked(port: int, kind: TaskType = TaskType.CLIENT_APP, *, insecure: bool = True) -> ExecutionSpec:
    return ExecutionSpec(kind, f"127.0.0.1:{port}", "token", insecure, None, False, os.getpid(), False, 1)


def test_an_app_is_a_process_of_its_own_that_is_reaped_when_it_has_ended(port: int) -> None:
    forking, before = Forking(OWN), set(multiprocessing.active_children())
    assert forking.launch(asked(port)).status == LaunchResultStatus.ACCEPTED
    (app,) = set(multiprocessing.active_children()) - before
    assert app.pid is not None
    assert app.pid != os.getpid()
    app.kill()
    deadline = time.monotonic() + 30
    while Path("/proc", str(app.pid)).exists():
        assert time.monotonic() < deadline
        forking.reconcile()
        time.sleep(0.05)


def test_an_app_starts_when_the_one_before_has_ended(port: int) -> None:
    forking, before = Forking(OWN), set(multiprocessing.active_children())
    forking.launch(asked(port))
    (first,) = set(multiprocessing.active_children()) - before
    threading.Timer(0.5, first.kill).start()
    forking.launch(asked(port))
    (second,) = set(multiprocessing.active_children()) - before
    assert second is not first
    second.kill()
    second.join()


def test_an_app_that_is_killed_leaves_nothing_half_installed(
    port: int, flwr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "LAST", 0.1)
    half = flwr_home / "apps" / "fedstill.fedstill.0.1.0.12345678"
    half.mkdir(parents=True)
    forking, before = Forking(OWN), set(multiprocessing.active_children())
    for _ in range(2):
        forking.launch(asked(port))
    one, other = set(multiprocessing.active_children()) - before
    one.kill()
    one.join()
    forking.reconcile()
    assert half.exists()  # the other may be at work with it
    other.kill()
    other.join()
    forking.reconcile()
    assert not half.exists()
    assert flwr_home.exists()


def test_nothing_is_started_for_somebody_else_at_the_supernodes_port(port: int) -> None:
    before = set(multiprocessing.active_children())
    said = Forking(OWN + 1).launch(asked(port))
    assert said.status == LaunchResultStatus.FAILED
    assert f"listens user {{{OWN}}}, not {OWN + 1} alone" in str(said.message)
    assert set(multiprocessing.active_children()) <= before


def test_nothing_is_started_while_nobody_is_at_the_supernodes_port(port: int) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        said = Forking(OWN).launch(asked(bound.getsockname()[1]))
    assert said.status == LaunchResultStatus.FAILED
    assert "listens user nobody" in str(said.message)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_listeners_are_found_at_every_address(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        assert listeners(listening.getsockname()[1]) == {OWN}


def test_a_device_runs_no_servers_apps(port: int) -> None:
    for spec in (asked(port, TaskType.SERVER_APP), asked(port, insecure=False)):
        assert Forking(OWN).launch(spec).status == LaunchResultStatus.FAILED


def test_the_secret_of_its_work_is_for_its_owners_eyes_and_stays_what_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make_secret()
    before = home.secret.read_bytes()
    home.make_secret()
    assert home.secret.read_bytes() == before
    assert stat.S_IMODE(home.secret.stat().st_mode) == 0o600
