"""The device's folder: what is damaged is said and never cleared away."""

from pathlib import Path

import pytest

from client.updates.home import STATE, Home, default_home
from client.updates.state import Failed, Installed, State
from fedstill.errors import ConfigError
from tests.client.devices import Device


def installed(version: int) -> Installed:
    return Installed(version=version, file="f", sha256={})


def failed(version: int) -> Failed:
    return Failed(version=version, reason="r", onnxruntime="1")


def versions(state: State) -> tuple[int | None, tuple[int, ...], bool]:
    running = state.running.version if state.running else None
    return running, tuple(good.version for good in state.good), state.watched


def test_a_damaged_state_is_one_line_and_no_slot_is_lost(device: Device) -> None:
    device.updater().check()
    (device.home.folder / STATE).write_text("{")
    with pytest.raises(ConfigError, match="can't be read as a device's state; put back a copy of it"):
        device.updater().check()
    assert len(list((device.home.folder / "slots").iterdir())) == 1


def test_an_unusable_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no device here yet"):
        Home(tmp_path / "none").state()
    with pytest.raises(ConfigError, match="no device here yet"), Home(tmp_path / "none").updating():
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't keep a device's state here"):
        Home(tmp_path / "file").make()


def test_the_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDSTILL_HOME", raising=False)
    assert default_home() == tmp_path / "fedstill" / "device"
    monkeypatch.setenv("FEDSTILL_HOME", str(tmp_path / "own"))
    assert default_home() == tmp_path / "own"


def test_a_failed_change_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    before = home.state()

    def fail(state: State) -> State:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        home.change(fail)
    assert home.state() == before
    assert not list(tmp_path.glob(".*"))


def test_the_last_good_release_is_kept_whatever_follows() -> None:
    state = State(device_id="d").switched(installed(1)).committed(1, {})
    assert versions(state) == (1, (), False)
    state = state.switched(installed(2))
    assert versions(state) == (2, (1,), True)
    assert versions(state.rolled_back(failed(2))) == (1, (), False)
    state = state.committed(2, {"a": 1}).switched(installed(3))
    assert versions(state) == (3, (2, 1), True)
    assert versions(state.rolled_back(failed(3))) == (2, (1,), False)
    assert versions(state.committed(3, {})) == (3, (2,), False)
    # What is said about a version that does not run any more changes nothing.
    assert state.committed(2, {}) == state.rolled_back(failed(2)) == state.started(2) == state


def test_a_first_release_that_fails_leaves_nothing_running() -> None:
    state = State(device_id="d").switched(installed(1)).rolled_back(failed(1))
    assert versions(state) == (None, (), False)
    assert state.failure(1, "1") == "r"
    assert state.failure(1, "2") is None
