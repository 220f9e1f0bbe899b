import importlib.metadata

import pytest

from fedstill.cli import GROUP, _load_rooms


@pytest.fixture(autouse=True)
def _a_room_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("lab", "deploy.no_such_module:register", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])


def test_rooms_that_are_not_installed_are_left_out_of_the_list() -> None:
    _load_rooms(["--help"])


def test_a_command_of_such_a_room_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _load_rooms(["lab"])
    said = " ".join(capsys.readouterr().err.split())
    assert (
        said == "fedstill: lab needs deploy.no_such_module, which is not installed: install Fedstill with the extra lab"
    )
