from dataclasses import replace
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from client import probe
from client.commands import register
from client.enrol import make_key
from client.home import Home
from fedstill.errors import ConfigError

CONFIG = 'number = 2\ndevice_class = "pi4"\nsuperlink = "localhost:8000"\n'


def fedstill(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["client", *arguments], catch_exceptions=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A device that was enrolled, without data."""
    found = Home(tmp_path / "device")
    found.folder.mkdir()
    found.config_path.write_text(CONFIG)
    make_key(found.key)
    return found


def test_a_machine_that_is_not_enrolled_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedstill client enroll"):
        fedstill("start", "--home", str(tmp_path))
    assert "not enrolled" in fedstill("doctor", "--home", str(tmp_path)).output
    with pytest.raises(ConfigError, match="not running"):
        fedstill("stop", "--home", str(tmp_path))


def test_enrolment_begins_with_what_can_be_wrong_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is no token"):
        fedstill("enroll", "word", "--home", str(tmp_path))
    with pytest.raises(ConfigError, match="No such file"):
        fedstill("enroll", "word", "--home", str(tmp_path), "--data", str(tmp_path / "data.toml"))
    with pytest.raises(ConfigError, match="no such file"):
        fedstill("enroll", "word", "--home", str(tmp_path), "--proxy", str(tmp_path / "proxy.npy"))
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_tells_what_stands_in_the_way(home: Home, tmp_path: Path) -> None:
    done = fedstill("doctor", "--home", str(home.folder))
    assert done.exit_code == 1
    assert "device: 2 of class pi4" in done.output
    assert "cores with: " in done.output
    assert "trouble: no data; name its path" in done.output
    (tmp_path / "data.toml").write_text('format = "npz"\n')
    home.config_path.write_text(CONFIG + f'data = "{tmp_path / "data.toml"}"\nproxy = "{tmp_path / "gone.npy"}"\n')
    home.key.chmod(0o644)
    said = fedstill("doctor", "--home", str(home.folder)).output
    for word in ("data.toml: path: Field required", "gone.npy: no such file", "private key is open to others"):
        assert word in said
    home.key.unlink()
    assert "the device's key is gone" in fedstill("doctor", "--home", str(home.folder)).output


@pytest.mark.parametrize(
    ("line", "place"),
    [('superlink = "fl.example.org"', "superlink"), ('superlink = ""', "superlink"), ('delivery = "fl:"', "delivery")],
)
def test_an_address_without_a_port_is_told(line: str, place: str, home: Home) -> None:
    key = line.partition(" ")[0]
    others = [other for other in CONFIG.splitlines() if not other.startswith(key)]
    home.config_path.write_text("\n".join([*others, line]))
    with pytest.raises(ConfigError, match=rf"device\.toml: {place}: not an address of the form host:port \(given: "):
        fedstill("doctor", "--home", str(home.folder))


def test_the_doctor_tells_an_emulated_machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "emulated" not in fedstill("doctor", "--home", str(home.folder)).output
    machine = replace(probe.look(), emulated=True)
    monkeypatch.setattr(probe, "look", lambda: machine)
    said = " ".join(fedstill("doctor", "--home", str(home.folder)).output.split())
    assert "emulated: times measured here are no board's" in said


def test_the_doctor_tells_what_the_data_need_and_is_not_installed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.data.images.find_spec", lambda name: None)
    (tmp_path / "data.toml").write_text('format = "folders"\npath = "photos"\n')
    home.config_path.write_text(CONFIG + f'data = "{tmp_path / "data.toml"}"\n')
    assert "data.toml: encoded images need Pillow" in fedstill("doctor", "--home", str(home.folder)).output


def test_a_home_too_deep_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a Unix socket"):
        Home(tmp_path / ("x" * 100)).socket  # noqa: B018


def test_status_tells_whether_a_device_may_train_and_why_not(home: Home) -> None:
    said = fedstill("status", "--home", str(home.folder)).output
    for word in (
        "device 2 of class pi4",
        "agent runs       no",
        "isolation        off",
        "may train        yes",
        "releases",
    ):
        assert word in said
    home.limits.write_text(f"free_disk_mb = {10**9}\n")
    assert "may train        not now: its disk is full" in fedstill("status", "--home", str(home.folder)).output
    home.limits.write_text("max_celcius = 70\n")
    with pytest.raises(ConfigError, match=r"limits.toml: unknown key 'max_celcius'.*max_celsius"):
        fedstill("status", "--home", str(home.folder))
