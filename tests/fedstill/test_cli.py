import importlib.metadata
import re
from pathlib import Path

import click
import pytest
import typer

from fedstill.cli import GROUP, _load_rooms, app, main
from fedstill.invitation import Invitation


@pytest.fixture
def _a_room_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("lab", "deploy.no_such_module:register", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])


@pytest.mark.usefixtures("_a_room_without_its_packages")
def test_rooms_that_are_not_installed_are_left_out_of_the_list() -> None:
    _load_rooms(["--help"])


@pytest.mark.usefixtures("_a_room_without_its_packages")
def test_a_command_of_such_a_room_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _load_rooms(["lab"])
    said = " ".join(capsys.readouterr().err.split())
    assert (
        said == "fedstill: lab needs deploy.no_such_module, which is not installed: install Fedstill with the extra lab"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate", "--rounds", "x"], "Invalid value for '--rounds'"),
        (["simulate", "digits", "extra"], "unexpected extra argument (extra)"),
        (["simulate", "--nothing"], "No such option '--nothing'; see `fedstill simulate --help`"),
        (["compress", "--trials", "0"], "0 is not in the range"),
        (["simulat"], "Did you mean 'simulate'?"),
        (["server", "init", "--host", "h", "--port", "99999"], "99999 is not in the range 1<=x<=65535"),
        (["devices", "--state", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["compare", "fedstill", "--seeds", ""], "seeds"),
    ],
)
def test_what_the_command_line_does_not_know_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fedstill", *arguments])
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with pytest.raises(SystemExit, match="2"):
        main()
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"fedstill: [^\n]*\n", told.err)
    assert said in told.err
    assert told.err.count("Did you mean") <= 1


def test_a_folder_that_can_not_be_made_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    token = Invitation("127.0.0.1:1", "ab" * 32, "secret").encode()
    home = tmp_path / "file" / "device"
    monkeypatch.setattr("sys.argv", ["fedstill", "client", "enroll", token, "--home", str(home)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"fedstill: {home}: Not a directory\n"


def test_no_help_loses_a_default_in_brackets() -> None:
    _load_rooms(["--help"])

    def helps(command: click.Command) -> list[str]:
        own = [str(one.help) for one in command.params if getattr(one, "help", None)]
        return own + [text for below in getattr(command, "commands", {}).values() for text in helps(below)]

    texts = helps(typer.main.get_command(app))
    assert len(texts) > 50
    assert not [text for text in texts if re.search(r"\[[a-z]", text)]  # which Rich takes for markup
