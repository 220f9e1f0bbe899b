import json
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedstill.device_classes import BUDGETS
from fedstill.errors import ConfigError
from server.delivery.state import State, found_state
from server.delivery.summary import Found
from server.deployment.control import Control
from server.deployment.devices import overview, register
from server.enrolment.registry import Member, Registry


def member(number: int, kind: str, revoked: float | None = None) -> Member:
    return Member(number, kind, f"key {number}", 100 + number, 0.0, revoked)


def found(kind: str, version: int) -> Found:
    outcomes = {"committed": 2, "rolled back": 1}
    return Found(device_class=kind, version=version, task="digits", student="tiny", devices=3, outcomes=outcomes)


def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    register(made)
    return made


def test_every_built_in_class_is_listed_with_its_budget_and_those_of_devices_after_them() -> None:
    classes = overview([member(0, "toaster")], None, [])
    assert [one["device_class"] for one in classes] == [*BUDGETS, "toaster"]
    assert classes[0]["budget"] == BUDGETS["jetson"].model_dump(exclude_none=True)
    assert classes[-1]["budget"] == {}


def test_devices_are_counted_by_state_and_a_revoked_one_is_not_online() -> None:
    fleet = [member(0, "pi4"), member(1, "pi4"), member(2, "pi4", revoked=1.0)]
    nodes = {100: "online", 101: "offline", 102: "online"}
    (pi4,) = [one for one in overview(fleet, nodes, []) if one["device_class"] == "pi4"]
    assert (pi4["enrolled"], pi4["online"], pi4["revoked"]) == (2, 1, 1)


def test_without_a_superlink_nobody_knows_who_is_online() -> None:
    assert {one["online"] for one in overview([member(0, "pi4")], None, [])} == {None}


def test_the_newest_release_that_devices_told_about_stands_with_its_class() -> None:
    classes = overview([], {}, [found("pi4", 2), found("pi4", 1)])
    releases = {one["device_class"]: one["release"] for one in classes}
    assert releases["pi4"]["version"] == 2
    assert releases["pi5"] is None


def test_the_command_prints_a_table_or_json_where_no_server_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSTILL_SERVER", str(tmp_path / "none"))
    (tmp_path / "state").mkdir()
    state = ["--state", str(tmp_path / "state")]
    table = CliRunner().invoke(app(), ["devices", *state])
    assert table.exit_code == 0, table.output
    assert "zero2w" in table.output
    assert "no server is up here" in table.output
    told = json.loads(CliRunner().invoke(app(), ["devices", "--json", *state]).output)
    assert told["server"] is False
    assert [one["device_class"] for one in told["classes"]] == list(BUDGETS)


def test_a_server_whose_processes_are_containers_is_up_where_its_superlink_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a lock there."""
    registry = Registry(tmp_path / "fleet.db")
    registry.registered(registry.admit(registry.invite("pi4", 60), "key").number, 7)
    monkeypatch.setattr(Control, "nodes", lambda self: {7: "online"})
    with socket.create_server(("127.0.0.1", 0)) as superlink:
        config = f'host = "fl.example.org"\nport = {superlink.getsockname()[1]}\n'
        (tmp_path / "server.toml").write_text(config)
        said = CliRunner().invoke(app(), ["devices", "--json", "--home", str(tmp_path)])
    assert json.loads(said.output)["server"], said.output
    assert [one["online"] for one in json.loads(said.output)["classes"] if one["enrolled"]] == [1]


def test_what_devices_told_is_found_in_the_folder_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSTILL_SERVER", str(tmp_path / "server"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert found_state() == tmp_path / "fedstill" / "delivery"
    State(tmp_path / "server" / "delivery").begin(str(tmp_path / "store"))
    assert found_state() == tmp_path / "server" / "delivery"


def test_a_folder_that_is_no_server_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(), ["devices", "--home", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "no server here" in str(result.exception)
