import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from fedstill.files import write_atomic
from fedstill.processes import run_service
from server.deployment.home import NEWEST_RUN, ServerConfig, ServerHome
from server.deployment.metrics import Fleet, address, run
from server.deployment.programs import programs
from server.enrolment.registry import Registry

ROW = {
    "round": 2,
    "answers": 5,
    "refused": {"3": "no answer", "9": "absent: too hot"},
    "uplink_bytes": 100,
    "downlink_bytes": 200,
    "released_accuracy": {"pi4": 0.5},
}


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    (tmp_path / "server.toml").write_text(tomli_w.dumps(ServerConfig(host="localhost").model_dump()))
    return ServerHome(tmp_path)


def told(home: ServerHome) -> str:
    registry = CollectorRegistry()
    registry.register(Fleet(home))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.decode()


def test_a_server_without_devices_or_runs_has_metrics(home: ServerHome) -> None:
    text = told(home)
    assert "fedstill_fleet_devices gauge" in text
    assert "fedstill_program_up" not in text  # no process of `server start` was ever here
    assert "fedstill_run_round" not in text
    assert text.endswith("# EOF\n")


def test_devices_are_counted_by_class_and_state(home: ServerHome) -> None:
    registry = Registry(home / "fleet.db")
    for key in ("a", "b"):
        registry.admit(registry.invite("pi4", 60), key)
    registry.revoked(0)
    text = told(home)
    assert 'fedstill_fleet_devices{device_class="pi4",state="active"} 1.0' in text
    assert 'fedstill_fleet_devices{device_class="pi4",state="revoked"} 1.0' in text


def test_a_program_that_runs_is_up(home: ServerHome) -> None:
    (home / "run").mkdir()
    (home / "run" / "superlink.pid").write_text(f"{os.getpid()}\n")
    assert 'fedstill_program_up{program="superlink"} 1.0' in told(home)
    assert 'fedstill_program_up{program="superexec"} 0.0' in told(home)


@pytest.mark.parametrize("finished", [False, True])
def test_the_newest_run_is_told_wherever_its_folder_lies(home: ServerHome, tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "elsewhere"
    out.mkdir()
    (out / "rounds.jsonl").write_text("".join(f"{json.dumps({**ROW, 'round': number})}\n" for number in (1, 2)))
    if finished:
        (out / "summary.json").write_text("{}")
    write_atomic(home / NEWEST_RUN, str(out).encode())
    text = told(home)
    assert "fedstill_run_round 2.0" in text
    assert "fedstill_run_not_used 1.0" in text
    assert "fedstill_run_absent 1.0" in text
    assert f"fedstill_run_finished {float(finished)}" in text
    assert 'fedstill_run_student_accuracy{device_class="pi4"} 0.5' in text


def test_in_a_container_of_their_own_they_are_at_the_port_that_the_command_line_names() -> None:
    config = ServerConfig(host="localhost", metrics_listen="192.0.2.1", metrics_port=9100)
    assert address(config, []) == ("192.0.2.1", 9100)
    assert address(config, ["9150"]) == ("0.0.0.0", 9150)


def test_a_port_that_is_none_is_told_in_one_line(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["word"], ["0"], ["65536"], ["-1"], ["9150", "9151"]):
        monkeypatch.setattr("sys.argv", ["metrics", str(home.folder), *words])
        assert run_service(run) == 2
        assert capsys.readouterr().err == f"fedstill: {' '.join(words)}: no port; give a number from 1 to 65535\n"


def test_a_server_that_may_only_be_read_has_metrics(home: ServerHome) -> None:
    """As in a container that only watches: root, who may write all the same, must not have written."""
    registry = Registry(home / "fleet.db")
    assert "fedstill_fleet_devices gauge" in told(home)
    assert not (home / "fleet.db").exists()
    registry.admit(registry.invite("pi4", 60), "key")
    before = (home / "fleet.db").stat().st_mtime_ns
    assert 'device_class="pi4",state="active"} 1.0' in told(home)
    assert (home / "fleet.db").stat().st_mtime_ns == before


def test_metrics_run_beside_the_others_only_where_they_have_a_port(home: ServerHome) -> None:
    assert "metrics" not in [program.name for program in programs(home)]
    changed = ServerConfig(host="localhost", metrics_port=9100)
    (home / "server.toml").write_text(tomli_w.dumps(changed.model_dump()))
    assert [program.name for program in programs(home)][-1] == "metrics"


def test_logs_are_json_objects_where_the_server_is_told_so(home: ServerHome) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    config = ServerConfig(host="localhost", metrics_port=port, json_logs=True)
    (home / "server.toml").write_text(tomli_w.dumps(config.model_dump()))
    command = [sys.executable, "-P", "-m", "server.deployment.metrics", str(home.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        line = service.stderr.readline()
        service.terminate()
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("info", f"metrics on 127.0.0.1:{port}")
