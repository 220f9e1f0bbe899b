import os
import socket
from pathlib import Path

import pytest

from deploy.health import main


@pytest.mark.parametrize("part", ["superlink", "enrolment", "device", "metrics", "nothing"])
def test_what_is_not_there_is_not_healthy(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSTILL_SERVER", str(tmp_path))
    monkeypatch.setenv("FEDSTILL_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("deploy.health.METRICS_PORT", taken.getsockname()[1])
    monkeypatch.setattr("sys.argv", ["health", part])
    assert main() == 1


def test_metrics_are_well_while_they_take_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr("deploy.health.METRICS_PORT", listening.getsockname()[1])
        monkeypatch.setattr("sys.argv", ["health", "metrics"])
        assert main() == 0


def test_a_device_is_well_while_all_of_its_processes_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSTILL_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["health", "device"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "agent.pid").write_text(f"{os.getpid()}\n")
    assert main() == 1
    (tmp_path / "run" / "supernode.pid").write_text(f"{os.getpid()}\n")
    assert main() == 1
    (tmp_path / "run" / "apps.pid").write_text(f"{os.getpid()}\n")
    assert main() == 0
    (tmp_path / "run" / "agent.pid").write_text("4194304999\n")
    assert main() == 1
