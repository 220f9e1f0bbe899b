"""A federation over Flower's real processes on the loopback address: TLS, authentication, kills."""

import json
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import tomli_w

from client.enrol import make_key
from client.home import Home
from server.deployment.control import Control
from server.deployment.home import ServerHome
from server.enrolment.registry import Registry
from tests.deploy.conftest import Undisturbed
from tests.deploy.deployment import ALL, Deployment, after_round, eventually, fedstill, free_ports, rows

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]


def test_a_run_with_kills_and_a_resume_is_the_simulation_undisturbed(
    deployment: Deployment, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    heard = deployment.log(1, "supernode").count("ROUND 2]")
    deployment.begin(out, ALL)
    after_round(out, 1)
    eventually(lambda: deployment.log(1, "supernode").count("ROUND 2]") > heard, "a message of the second round")
    deployment.kill(deployment.device(1), "supernode")
    deployment.kill(deployment.device(0), "agent")
    after_round(out, 2)
    time.sleep(random.uniform(0, 3))  # the last round takes longer, and the releases come after it
    assert deployment.kill_children(deployment.server, "superexec", "flwr-serverapp")
    assert deployment.ended(out) == 2
    deployment.resume(out)

    assert "supernode ended with code -9" in deployment.said("device-1")
    assert "agent ended with code -9" in deployment.said("device-0")
    assert rows(out) == undisturbed.rows
    assert [row["answers"] for row in rows(out)] == [3, 3, 3]
    summary = json.loads((out / "summary.json").read_text())
    for name, facts in summary["device_classes"].items():
        for key in ("devices", "student", "accuracy_devices", "accuracy_released", "refused"):
            assert facts[key] == undisturbed.summary["device_classes"][name][key]
    for key in ("uplink_bytes", "downlink_bytes"):
        assert summary["wire"][key] == undisturbed.summary["wire"][key]
    assert "server: reached; its clock and this machine's agree" in fedstill(
        "client", "doctor", "--home", str(deployment.device(0))
    )
    control = Control(ServerHome(deployment.server))
    log = control.log(control.runs()[0].run_id)
    assert "flwr-serverapp" in log
    assert "HTTP Request" not in log  # the log's own way to the SuperLink: it would never end
    # What the server sent to run on the devices holds no code.
    sent = [path for path in (deployment.device(0) / "flwr" / "apps").rglob("*") if path.is_file()]
    assert {path.name for path in sent if path.suffix == ".py"} == set()
    assert "pyproject.toml" in {path.name for path in sent}


def test_a_drained_server_ends_the_round_begins_nothing_and_loses_nothing(
    deployment: Deployment, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out, home = tmp_path / "run", ("--home", str(deployment.server))
    deployment.begin(out, ALL)
    eventually(lambda: f" in {out}" in deployment.said(f"run-{tmp_path.name}"), "the beginning of the run")
    try:
        said = fedstill("server", "drain", *home)
        assert "drained: no run is active" in " ".join(said.split())
        assert deployment.ended(out) == 0
        assert len(rows(out)) < 3
        assert f"paused after {len(rows(out))} rounds" in " ".join(deployment.said(f"run-{tmp_path.name}").split())
        assert "draining" in fedstill("server", "status", *home)
        for words in (("--resume", str(out)), (str(deployment.file), "--out", str(tmp_path / "other"))):
            with pytest.raises(AssertionError, match="the server drains: no run begins before"):
                fedstill("server", "run", *words, *home)
        assert not (tmp_path / "other").exists()
    finally:
        fedstill("server", "drain", "--off", *home)
    deployment.resume(out)
    assert rows(out) == undisturbed.rows


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


def test_a_device_whose_registration_was_noted_nowhere_is_revoked_all_the_same(deployment: Deployment) -> None:
    number = deployment.enrol("zero2w", free_ports(1)[0])
    registry, control = Registry(deployment.server / "fleet.db"), Control(ServerHome(deployment.server))
    member = registry.member(number)
    assert control.node_of(member.public_key) == member.node
    with closing(sqlite3.connect(deployment.server / "fleet.db")) as fleet, fleet:
        fleet.execute("UPDATE devices SET node = NULL WHERE number = ?", (number,))
    fedstill("server", "revoke", str(number), "--home", str(deployment.server))
    assert control.node_of(member.public_key) is None
    with pytest.raises(AssertionError, match=f"device {number} is revoked already"):
        fedstill("server", "revoke", str(number), "--home", str(deployment.server))


def test_a_revoked_device_is_turned_away(deployment: Deployment) -> None:
    number = deployment.enrol("zero2w", free_ports(1)[0])
    deployment.start_device(number)
    eventually(lambda: "SuperNode ID" in deployment.log(number, "supernode"), "the device's connection")
    fedstill("server", "revoke", str(number), "--home", str(deployment.server))
    assert "revoked" in fedstill("server", "status", "--home", str(deployment.server))
    eventually(lambda: "supernode ended" in deployment.said(f"device-{number}"), "a refusal")
    deployment.stop_device(number)
    with pytest.raises(AssertionError, match=f"device {number} is revoked already"):
        fedstill("server", "revoke", str(number), "--home", str(deployment.server))

    token = fedstill("server", "token", "--class", "zero2w", "--home", str(deployment.server)).strip()
    with pytest.raises(AssertionError, match="a device is enrolled here already"):
        fedstill("client", "enroll", token, "--home", str(deployment.device(number)))
    again = deployment.enrol("zero2w", free_ports(1)[0])  # another token, a folder and a key that nobody revoked
    deployment.start_device(again)
    eventually(lambda: deployment.connected(again), "the connection of the device that enrolled anew")
    deployment.stop_device(again)
    fedstill("server", "revoke", str(again), "--home", str(deployment.server))
