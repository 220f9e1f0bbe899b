"""What `fedstill client install` does to the system: users, the device's folder, the service. All of it as root."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import tomli_w

from client.home import DeviceConfig, Home
from client.install.access import check_code, check_data
from client.install.layout import Users, arrange, check
from client.install.unit import NAME
from fedstill.config import parse
from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from fedstill.processes import holder

BOOTED = Path("/run/systemd/system")
"""There while systemd runs the machine."""
UNITS = Path("/etc/systemd/system")
MOVED = ("ca.crt", "supernode.key", "limits.toml", "state", "parcels")
"""What a device that was enrolled by a user takes along, besides what it is."""
COPIED = ("root.json",)
"""What it takes along and leaves there: its releases may stay the user's."""
TIMEOUT = 300.0


def check_root() -> None:
    """Make sure that this is root.

    Raises:
        ConfigError: it is not.
    """
    if os.geteuid() != 0:
        raise ConfigError("this changes users and services of the machine; run it with sudo")


def check_systemd() -> None:
    """Make sure that there is a service manager.

    Raises:
        ConfigError: there is none, as in most containers.
    """
    if not BOOTED.is_dir() or shutil.which("systemctl") is None:
        raise ConfigError(
            "systemd does not run this machine, so there is no service to install; `fedstill client install "
            "--no-service` makes users and folders alone, for `fedstill client start` as root"
        )


def enrolled(source: Home, home: Home) -> Home:
    """Return the folder of the device that is to be installed: the system's own, or the user's who enrolled it.

    Raises:
        ConfigError: there is no device, there are two, or it is running.
    """
    if not home.config_path.exists() and not source.config_path.exists():
        raise ConfigError(f"no device in {source.folder} or {home.folder}; begin with `fedstill client enroll TOKEN`")
    if source.folder != home.folder and home.config_path.exists() and source.config_path.exists():
        raise ConfigError(
            f"a device is installed in {home.folder} already; `fedstill client uninstall --purge` ends it"
        )
    found = home if home.config_path.exists() else source
    if found == source and holder(found.run / "client.lock") is not None:
        raise ConfigError(f"the device in {found.folder} is running; `fedstill client stop` ends it")
    return found


def described(found: Home, **places: Path | None) -> DeviceConfig:
    """Return what the device will be: what it is, with other data, proxy set or backbone where they are named."""
    named = {key: str(path.resolve()) for key, path in places.items() if path is not None}
    return parse(DeviceConfig, {**found.config().model_dump(), **named}, str(found.config_path))


def prepare(found: Home, home: Home, config: DeviceConfig, users: Users) -> None:
    """Make users and folder, and move the device there.

    Raises:
        ConfigError: something about users, code or data does not fit; the device is then where it was.
    """
    make_users(users, home.folder)
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    arrange(home, users)  # the place for data is there even if what follows finds that they are elsewhere
    check_code(users)
    check_data(config, users, home)
    if found.folder != home.folder:
        home.folder.chmod(0o700)  # nobody sees what is not whose it should be yet
        _take_over(found, home, users)
    write_atomic(home.config_path, tomli_w.dumps(config.model_dump()).encode())
    home.make_secret()
    write_atomic(home.users, tomli_w.dumps(users.model_dump()).encode())
    arrange(home, users)
    check(home, users)
    if found.folder != home.folder:  # the key is in one place alone, and no second device begins from it
        for path in (found.config_path, *(found.folder / name for name in MOVED)):
            _remove(path)


def make_users(users: Users, home: Path) -> None:
    """Make the system users that are missing, each with a group of its own and no way to log in.

    Raises:
        ConfigError: the system can't.
    """
    for name in users.names():
        try:
            pwd.getpwnam(name)
        except KeyError:
            options = ("--system", "--user-group", "--no-create-home", "--home-dir", str(home))
            _run("useradd", *options, "--shell", "/usr/sbin/nologin", name)


def _take_over(found: Home, home: Home, users: Users) -> None:
    """Copy a device; new files, so that nobody has them open or linked."""
    agent = pwd.getpwnam(users.agent)
    for name in (*MOVED, *COPIED):
        source, target = found.folder / name, home.folder / name
        if source.is_dir():
            _remove(target)
            shutil.copytree(source, target, symlinks=True)
            for path in target.rglob("*"):
                os.chown(path, agent.pw_uid, agent.pw_gid, follow_symlinks=False)
        elif source.exists():
            write_atomic(target, source.read_bytes())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def enable(text: str) -> None:
    """Write the unit, start it now and at every boot.

    Raises:
        ConfigError: systemd refuses.
    """
    write_atomic(UNITS / NAME, text.encode())
    (UNITS / NAME).chmod(0o644)
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", NAME)
    _run("systemctl", "restart", NAME)


def disable() -> None:
    """Stop the service and remove its unit; changes of the owner's go with it.

    Raises:
        ConfigError: systemd refuses.
    """
    if (UNITS / NAME).exists():
        _run("systemctl", "disable", "--now", NAME)
        (UNITS / NAME).unlink()
        shutil.rmtree(UNITS / f"{NAME}.d", ignore_errors=True)
        _run("systemctl", "daemon-reload")


def serves(home: Home) -> bool:
    """Return whether the service of this machine runs the device in a folder."""
    try:
        return BOOTED.is_dir() and f"--home {home.folder}\n" in (UNITS / NAME).read_text()
    except OSError:
        return False


def stop_service() -> None:
    """Stop the service until it is started again.

    Raises:
        ConfigError: systemd refuses.
    """
    _run("systemctl", "stop", NAME)


def purge(home: Home, users: Users) -> None:
    """Remove the device's folder, its key included, and its users.

    Raises:
        ConfigError: the folder is none of a device, or a user can't be removed.
    """
    shutil.rmtree(home.folder)
    for name in users.names():
        _run("userdel", name)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())[-500:]}")
