"""What `install` and `uninstall` do as root, with folders and units of the tests' own; users of theirs go again."""

import errno
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from client.home import Home
from client.install import system
from client.install.commands import install, uninstall
from client.install.layout import Users, arrange, check
from client.install.unit import NAME, unit
from client.limits import Limits
from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from server.deployment.certificates import make_certificates

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
OWNER = 1234
USERS = Users(agent="daemon", node="bin", app="games")
CONFIG = 'number = {}\ndevice_class = "pi4"\nsuperlink = "localhost:8000"\n'
LINKS = (
    "ca.crt",
    "supernode.key",
    "limits.toml",
    "root.json",
    "device.toml",
    "state",
    "parcels",
    "state/run/plan.json",
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that all users get to, unlike pytest's own; its units are those of the machine."""
    found = Path(tempfile.mkdtemp(dir="/var/tmp"))
    found.chmod(0o711)
    (found / "units").mkdir()
    monkeypatch.setattr(system, "UNITS", found / "units")
    monkeypatch.setattr(system, "BOOTED", found)
    monkeypatch.setattr(sys, "executable", "/bin/true")  # whether the users can run this environment is not at issue
    yield found
    shutil.rmtree(found)


@pytest.fixture
def systemctl(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a service manager that takes everything, and return the file that says what it was told."""
    told = place / "told"
    told.touch()
    (place / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (place / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return told


@pytest.fixture
def own_users() -> Iterator[Users]:
    """Return users that are the test's alone."""
    users = Users(**{role: f"fedstill-{role[0]}{uuid.uuid4().hex[:8]}" for role in ("agent", "node", "app")})
    system.make_users(users, Path("/nonexistent"))
    yield users
    for name in users.names():
        subprocess.run(["userdel", name], capture_output=True, check=False)


def enrolled_device(folder: Path, number: int = 2) -> Home:
    """Return a device that was enrolled by a user, and has taken part in a run."""
    home = Home(folder)
    (home.state / "run").mkdir(parents=True)
    home.parcels.mkdir()
    make_certificates(home.folder, ("localhost",))
    for name in ("ca.key", "server.key", "server.crt"):
        (home.folder / name).unlink()
    home.config_path.write_text(CONFIG.format(number))
    home.key.write_text("the key")
    home.limits.write_text("nice = 10\n")
    home.root.write_text("{}")
    (home.state / "run" / "plan.json").write_text("the plan")
    os.utime(home.state / "run", (1000, 1000))
    for path in (home.folder, *home.folder.rglob("*")):
        os.chown(path, OWNER, OWNER)
    return home


def installed_device(folder: Path, users: Users = USERS) -> Home:
    """Return what uninstalling looks at."""
    home = Home(folder)
    home.folder.mkdir()
    home.config_path.write_text(CONFIG.format(2))
    home.users.write_text(tomli_w.dumps(users.model_dump()))
    return home


def prepare(source: Home, home: Home) -> None:
    found = system.enrolled(source, home)
    system.prepare(found, home, system.described(found), USERS)


def contents(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_unit(home: Home) -> Path:
    path = system.UNITS / NAME
    path.write_text(unit(home, Limits(), "pi4"))
    return path


def test_a_device_moves_with_its_state_and_times(place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    before = contents(source.folder)
    prepare(source, home)
    check(home, USERS)
    after = contents(home.folder)
    assert {path: after[path] for path in before if path.name != "device.toml"} == {
        path: text for path, text in before.items() if path.name != "device.toml"
    }
    assert home.config().number == 2
    assert contents(source.folder).keys() == {Path("root.json")}
    run = (home.state / "run").stat()
    assert (run.st_uid, run.st_mtime) == (pwd.getpwnam(USERS.agent).pw_uid, 1000)
    prepare(source, home)  # once more repairs
    check(home, USERS)


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_is_not_the_users_own_is_not_taken(name: str, kind: str, place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    secret = enrolled_device(place / "roots").folder / name  # fits in every other respect
    for path in (place / "roots").rglob("*"):
        os.chown(path, 0, 0)
    if secret.is_dir():
        shutil.rmtree(source.folder / name)
    else:
        (source.folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(source.folder / name)
        os.chown(source.folder / name, OWNER, OWNER)
    elif kind == "hard link" and not secret.is_dir():
        os.link(secret, source.folder / name)
    else:
        (source.folder / name).symlink_to(secret)
    before, mode = contents(secret.parent), stat.S_IMODE(secret.stat().st_mode)
    with pytest.raises(ConfigError, match=rf"mine/{name}: no (plain file|folder) of its folder's owner.*remove it"):
        prepare(source, home)
    assert not home.users.exists()
    assert not (home.folder / name).is_file()
    assert (contents(secret.parent), stat.S_IMODE(secret.stat().st_mode)) == (before, mode)
    assert source.config_path.is_symlink() or source.config_path.exists()


def test_what_everybody_may_read_is_a_certificate(place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    source.authority.write_text("root:$6$secret:19000::::::\n")
    with pytest.raises(ConfigError, match=r"mine/ca.crt: no certificate"):
        prepare(source, home)
    assert not home.authority.exists()


def test_a_folder_that_is_another_users_does_not_become_a_device_where_it_is(place: Path) -> None:
    home = enrolled_device(place / "device")
    (home.folder / "ca.crt").unlink()
    (home.folder / "ca.crt").symlink_to(place / "secret")
    (place / "secret").touch(0o600)
    with pytest.raises(ConfigError, match=r"device: not root's.*--from"):
        prepare(home, home)
    assert stat.S_IMODE((place / "secret").stat().st_mode) == 0o600


def test_the_key_is_closed_from_the_first_moment(place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    (source.state / "run" / "link").symlink_to("/etc/shadow")  # what is copied after the key is refused
    with pytest.raises(ConfigError, match="run/link"):
        prepare(source, home)
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700


def test_a_folder_is_opened_when_all_in_it_is_closed(place: Path) -> None:
    home = Home(place / "device")
    home.folder.mkdir(0o700)
    home.key.touch(0o644)
    with pytest.raises(KeyError, match="nobody-of-this-name"):
        arrange(home, Users(agent="daemon", node="nobody-of-this-name", app="games"))
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["supernode.key", "device.toml", "users.toml"])
def test_an_install_that_broke_off_is_repeated(name: str, place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    before = contents(source.folder)

    def full(path: Path, content: bytes, *, mode: int = 0o666) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_atomic(path, content, mode=mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "write_atomic", full)
        with pytest.raises(OSError, match=f"No space left.*{name}"):
            prepare(source, home)
    assert contents(source.folder) == before
    prepare(source, home)
    check(home, USERS)
    assert home.users.exists()
    assert (home.state / "run" / "plan.json").read_text() == "the plan"
    assert not source.key.exists()


def test_a_device_without_its_certificate_stays_where_it_is(place: Path) -> None:
    source, home = enrolled_device(place / "mine"), Home(place / "device")
    certificate = source.authority.read_bytes()
    source.authority.unlink()
    with pytest.raises(ConfigError, match=r"device/ca.crt: not there"):
        prepare(source, home)
    source.authority.write_bytes(certificate)
    os.chown(source.authority, OWNER, OWNER)
    prepare(source, home)
    check(home, USERS)


def test_another_device_in_the_folder_is_not_written_over(place: Path) -> None:
    source, home = enrolled_device(place / "mine"), enrolled_device(place / "device", number=3)
    with pytest.raises(ConfigError, match=r"another device is enrolled in .*device already"):
        prepare(source, home)
    assert home.config().number == 3


def test_a_second_device_does_not_take_the_first_ones_service(place: Path, systemctl: Path) -> None:
    first, source, home = installed_device(place / "a"), enrolled_device(place / "mine"), Home(place / "b")
    path = write_unit(first)
    before = path.read_text()
    with pytest.raises(ConfigError, match=rf"runs the device in {first.folder}.*uninstall --home {first.folder}"):
        install(home=home.folder, source=source.folder, data=None, proxy=None, backbone=None, service=True)
    assert (path.read_text(), systemctl.read_text()) == (before, "")
    assert not home.folder.exists()
    shutil.rmtree(first.folder)
    system.check_service(home)  # a unit whose device is gone holds nobody up


def test_only_the_service_of_the_device_is_removed(
    place: Path, systemctl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = installed_device(place / "a"), installed_device(place / "b")
    path = write_unit(first)
    uninstall(home=second.folder, purge=False)
    assert path.exists()
    assert systemctl.read_text() == ""
    uninstall(home=first.folder, purge=False)
    assert not path.exists()
    assert systemctl.read_text().splitlines() == [f"disable --now {NAME}", "daemon-reload"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in said] == ["removed: no service", "removed: the service"]


@pytest.mark.skipif(shutil.which("useradd") is None, reason="no useradd on this machine")
def test_users_go_with_the_last_device_that_needs_them(place: Path, systemctl: Path, own_users: Users) -> None:
    first, second = installed_device(place / "a", own_users), installed_device(place / "b", own_users)
    write_unit(first)
    uninstall(home=second.folder, purge=True)
    assert not second.folder.exists()
    for name in own_users.names():
        pwd.getpwnam(name)
    uninstall(home=first.folder, purge=True)
    assert not first.folder.exists()
    assert set(own_users.names()).isdisjoint(user.pw_name for user in pwd.getpwall())


@pytest.mark.skipif(shutil.which("useradd") is None, reason="no useradd on this machine")
def test_a_purge_that_broke_off_is_repeated(place: Path, own_users: Users) -> None:
    home = installed_device(place / "device", own_users)
    with subprocess.Popen(["sleep", "60"], user=own_users.app, group=own_users.app, extra_groups=[]) as busy:
        try:
            with pytest.raises(ConfigError, match=f"userdel {own_users.app}: .*currently used by process"):
                uninstall(home=home.folder, purge=True)
        finally:
            busy.kill()
    uninstall(home=home.folder, purge=True)
    assert not home.folder.exists()
    assert set(own_users.names()).isdisjoint(user.pw_name for user in pwd.getpwall())
