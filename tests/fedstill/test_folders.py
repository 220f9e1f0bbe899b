from collections.abc import Callable
from pathlib import Path

import pytest

from client.updates.home import default_home as device
from deploy.lab.emulation import default_folder as lab
from fedstill.errors import ConfigError
from server.delivery.state import default_state as delivery
from server.deployment.home import default_home as server
from server.release.home import default_folder as keys

NAMES = {device: "device", lab: "lab", delivery: "delivery", server: "server", keys: "keys"}
VARIABLES = {device: "FEDSTILL_HOME", server: "FEDSTILL_SERVER", keys: "FEDSTILL_KEYS"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_DATA_HOME", *VARIABLES.values()):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("find", NAMES)
def test_a_folder_is_the_users_own_unless_the_environment_names_another(
    find: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find() == tmp_path / ".local" / "share" / "fedstill" / NAMES[find]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find() == tmp_path / "data" / "fedstill" / NAMES[find]
    if find in VARIABLES:
        monkeypatch.setenv(VARIABLES[find], str(tmp_path / "own"))
        assert find() == tmp_path / "own"


@pytest.mark.parametrize("find", NAMES)
def test_a_user_without_a_home_is_told_what_to_do(find: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match=rf"^no home folder for .+; .*({VARIABLES.get(find, '')}|XDG|--)[^\n]*$"):
        find()
