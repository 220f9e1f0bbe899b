"""What can be tried without changing the machine; tests/deploy/test_isolation.py installs for real."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from client.commands import register
from client.home import Home
from client.install.layout import Users, check_above, layout, read_users
from client.install.unit import NAME, unit
from client.limits import Limits
from fedstill.errors import ConfigError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root is told")
CONFIG = 'number = 2\ndevice_class = "pi4"\nsuperlink = "localhost:8000"\n'


def fedstill(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["client", *arguments], catch_exceptions=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
@pytest.mark.parametrize("limits", [Limits(), Limits(cpu_percent=150, memory_mb=400)])
@pytest.mark.parametrize("device_class", ["pi4", "jetson"])
def test_systemd_takes_the_unit_as_it_is(limits: Limits, device_class: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(unit(Home(Path("/var/lib/fedstill")), limits, device_class))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_holds_what_the_owner_limits_and_leaves_root_three_rights() -> None:
    text = unit(Home(Path("/srv/device")), Limits(cpu_percent=150, memory_mb=400), "pi4")
    lines = text.splitlines()
    assert {"CPUQuota=150%", "MemoryMax=400M", "PrivateDevices=yes", "ReadWritePaths=/srv/device"} <= set(lines)
    assert "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL" in lines
    assert lines[[line.startswith("ExecStart=") for line in lines].index(True)].endswith(
        " -P -m fedstill.cli client start --home /srv/device"
    )
    free = unit(Home(Path("/srv/device")), Limits(), "jetson")
    assert "MemoryMax=" not in free.replace("No CPUQuota and MemoryMax", "")
    assert "PrivateDevices" not in free


@pytest.mark.parametrize("folder", ["/srv/a device", "/srv/%n", '/srv/"x"', "/srv/a\nUser=root"])
def test_a_path_that_means_something_else_to_systemd_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="can't stand in a unit"):
        unit(Home(Path(folder)), Limits(), "pi4")


def test_a_dry_run_shows_the_unit_of_the_enrolled_device_and_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "device.toml").write_text(CONFIG)
    (source / "limits.toml").write_text("memory_mb = 300\n")
    done = fedstill("install", "--dry-run", "--from", str(source), "--home", "/srv/device")
    assert done.exit_code == 0
    assert "MemoryMax=300M" in done.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["device.toml", "limits.toml", "mine"]
    assert not Path("/srv/device").exists()


@as_root
def test_a_machine_without_systemd_is_told_what_it_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.install.system.BOOTED", tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"systemd does not run this machine.*--no-service"):
        fedstill("install", "--home", str(tmp_path / "device"))


@as_root
def test_what_can_not_be_installed_changes_nothing(tmp_path: Path) -> None:
    home, source = tmp_path / "device", tmp_path / "mine"
    with pytest.raises(ConfigError, match="begin with `fedstill client enroll"):
        fedstill("install", "--no-service", "--home", str(home), "--from", str(source))
    for folder in (home, source):
        folder.mkdir()
        (folder / "device.toml").write_text(CONFIG)
    with pytest.raises(ConfigError, match="nothing is installed"):
        fedstill("uninstall", "--home", str(home))
    (home / "users.toml").touch()
    with pytest.raises(ConfigError, match=r"is installed in .* already"):
        fedstill("install", "--no-service", "--home", str(home), "--from", str(source))
    assert sorted(path.name for path in home.iterdir()) == ["device.toml", "users.toml"]


@as_root
def test_users_that_are_not_three_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert read_users(home) is None
    for names in ('app = "root"', 'app = "fedstill-agent"', 'node = "fedstill-app"'):
        home.users.write_text(names)
        with pytest.raises(ConfigError, match="three users, and none of them root"):
            read_users(home)
    home.users.write_text('app = "Robert; drop"')
    with pytest.raises(ConfigError, match=r"users.toml: app"):
        read_users(home)


@as_root
def test_a_folder_that_others_could_exchange_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "pi"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=f"{own}: others than root may change"):
        check_above(own / "device")
    os.chown(own, 1234, 1234)
    own.chmod(0o755)
    with pytest.raises(ConfigError, match=f"{own}: others than root may change"):
        check_above(own / "device")
    own.chmod(0o700)
    os.chown(own, 0, 0)
    with pytest.raises(ConfigError, match=f"{own}: the device's users can't get through"):
        check_above(own / "device")


def test_nothing_but_the_socket_is_open_to_what_the_server_sends() -> None:
    users = Users()
    own = {place.path for place in layout(users) if users.app in (place.user, place.group)}
    assert own == {"apps", "superexec.secret", "run/agent"}
    for place in layout(users):
        if place.path not in ("", "run", "users.toml", "ca.crt"):
            assert place.mode & 0o007 == 0, place.path
