"""What `fedstill client install` does to the system: users, the device's folder, the service. All of it as root."""

import errno
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tomli_w
from cryptography import x509

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
FOLDERS = ("state", "parcels")
"""What of a device that was enrolled by a user becomes the agent's."""
MOVED = ("ca.crt", "supernode.key", "limits.toml", *FOLDERS)
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


def check_service(home: Home) -> None:
    """Make sure that the service of this machine is free for the device in a folder.

    Raises:
        ConfigError: it runs another one.
    """
    other = _other_served(home)
    if other is not None:
        raise ConfigError(
            f"{UNITS / NAME} runs the device in {other}, and a machine has one such service; `fedstill client "
            f"uninstall --home {other}` ends it, or --no-service installs this one without"
        )


def enrolled(source: Home, home: Home) -> Home:
    """Return the folder of the device that is to be installed: the system's own, or the user's who enrolled it.

    Where an install broke off it is in both, and the user's is still whole.

    Raises:
        ConfigError: there is no device, there are two, it is running, or something in its folder is not taken.
    """
    if not home.config_path.exists() and not source.config_path.exists():
        raise ConfigError(f"no device in {source.folder} or {home.folder}; begin with `fedstill client enroll TOKEN`")
    if source.folder == home.folder or not source.config_path.exists():
        found = home
    elif home.users.exists():
        raise ConfigError(
            f"a device is installed in {home.folder} already; `fedstill client uninstall --purge` ends it"
        )
    elif home.config_path.exists() and _number(home) != _number(source):
        raise ConfigError(f"another device is enrolled in {home.folder} already; choose another --home or --from")
    else:
        found = source
    if found == source and holder(found.run / "client.lock") is not None:
        raise ConfigError(f"the device in {found.folder} is running; `fedstill client stop` ends it")
    if found != home:
        with _entered(found) as folder:
            for name in (found.config_path.name, *MOVED, *COPIED):
                with suppress(FileNotFoundError), _opened(found.folder / name, folder, _kind(name)):
                    pass
    return found


def _number(home: Home) -> tuple[int, str]:
    """Return what no two devices have in common."""
    config = home.config()
    return config.number, config.superlink


def described(found: Home, **places: Path | None) -> DeviceConfig:
    """Return what the device will be: what it is, with other data, proxy set or backbone where they are named."""
    named = {key: str(path.resolve()) for key, path in places.items() if path is not None}
    return parse(DeviceConfig, {**found.config().model_dump(), **named}, str(found.config_path))


def prepare(found: Home, home: Home, config: DeviceConfig, users: Users) -> None:
    """Make users and folder, and move the device there.

    Raises:
        ConfigError: something about users, code or data does not fit; the device is then where it was.
        OSError: something can't be written; likewise, and this can be repeated.
    """
    make_users(users, home.folder)
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrange(home, users)  # the place for data is there even if what follows finds that they are elsewhere
    check_code(users)
    check_data(config, users, home)
    if found.folder == home.folder:
        _settle(home, config, users)
        return
    with _entered(found) as folder:
        home.folder.chmod(0o700)  # nobody sees what is not whose it should be yet
        _take_over(found, folder, home, users)
        _settle(home, config, users)
        for name in (found.config_path.name, *MOVED):  # the key is in one place alone, no second device begins from it
            _remove(name, folder)


def _settle(home: Home, config: DeviceConfig, users: Users) -> None:
    """Make what is in a folder a device with users of its own."""
    write_atomic(home.config_path, tomli_w.dumps(config.model_dump()).encode())
    home.make_secret()
    arrange(home, users)
    check(home, users)
    write_atomic(home.users, tomli_w.dumps(users.model_dump()).encode())  # last: with it the device is installed
    arrange(home, users)


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


def _take_over(found: Home, folder: int, home: Home, users: Users) -> None:
    """Copy a device; new files, so that nobody has them open or linked."""
    agent = pwd.getpwnam(users.agent)
    there = os.listdir(folder)
    for name in (*MOVED, *COPIED):
        source, target = found.folder / name, home.folder / name
        if name not in there:
            continue
        if name in FOLDERS:
            _remove(target)
            _copy_folder(source, folder, target)
            for path in target.rglob("*"):
                os.chown(path, agent.pw_uid, agent.pw_gid, follow_symlinks=False)
            continue
        with _opened(source, folder, stat.S_IFREG) as descriptor, open(descriptor, "rb", closefd=False) as file:
            content = file.read()
        if source == found.authority:
            _check_certificate(source, content)
        write_atomic(target, content, mode=0o600)


def _check_certificate(path: Path, content: bytes) -> None:
    """Make sure that everybody may read a file: that it is a certificate."""
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate; copy ca.crt from the server's folder to it") from error


def _copy_folder(source: Path, parent: int, target: Path) -> None:
    """Copy a folder's files and what is in its folders, with their times and without their permissions."""
    with _opened(source, parent, stat.S_IFDIR) as folder:
        target.mkdir(mode=0o700)
        for name in os.listdir(folder):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                _copy_folder(source / name, folder, target / name)
            else:
                _copy_file(source / name, folder, target / name)
        _copy_times(folder, target)


def _copy_file(source: Path, parent: int, target: Path) -> None:
    with _opened(source, parent, stat.S_IFREG) as descriptor:
        with open(descriptor, "rb", closefd=False) as file, target.open("xb") as copy:
            shutil.copyfileobj(file, copy)
        _copy_times(descriptor, target)


def _copy_times(descriptor: int, target: Path) -> None:
    found = os.fstat(descriptor)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


@contextmanager
def _entered(home: Home) -> Iterator[int]:
    """Hold a folder, which stays the same whatever becomes of its path."""
    folder = os.open(home.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield folder
    finally:
        os.close(folder)


def _kind(name: str) -> int:
    return stat.S_IFDIR if name in FOLDERS else stat.S_IFREG


@contextmanager
def _opened(path: Path, folder: int, kind: int) -> Iterator[int]:
    """Open what a user has in a folder; who planted a link there would have root read what is not that user's.

    Raises:
        ConfigError: it is of another kind, a link for example, or not the folder's owner's.
    """
    said = "plain file" if kind == stat.S_IFREG else "folder"
    refusal = ConfigError(
        f"{path}: no {said} of its folder's owner, so root does not take it; remove it, or `chown` it"
    )
    try:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise refusal from error
        raise
    try:
        found = os.fstat(descriptor)
        if stat.S_IFMT(found.st_mode) != kind or found.st_uid != os.fstat(folder).st_uid:
            raise refusal
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(path: Path | str, folder: int | None = None) -> None:
    """Remove a file or a folder with what is in it, if it is there; seen from a folder where one is given."""
    try:
        os.unlink(path, dir_fd=folder)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(path, dir_fd=folder)


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
    _run("systemctl", "disable", "--now", NAME)
    (UNITS / NAME).unlink()
    shutil.rmtree(UNITS / f"{NAME}.d", ignore_errors=True)
    _run("systemctl", "daemon-reload")


def has_unit(home: Home) -> bool:
    """Return whether the service of this machine is that of the device in a folder, systemd running or not."""
    return _served() == home.folder


def serves(home: Home) -> bool:
    """Return whether the service of this machine runs the device in a folder."""
    return BOOTED.is_dir() and has_unit(home)


def _served() -> Path | None:
    """Return the folder of the device that the unit names."""
    try:
        found = re.search(r"^ExecStart=.* --home (\S+)$", (UNITS / NAME).read_text(), re.MULTILINE)
    except OSError:
        return None
    return Path(found[1]) if found else None


def _other_served(home: Home) -> Path | None:
    """Return the folder of another installed device whose unit it is; one whose folder is gone needs none."""
    found = _served()
    return found if found not in (None, home.folder) and Home(found).users.exists() else None


def stop_service() -> None:
    """Stop the service until it is started again.

    Raises:
        ConfigError: systemd refuses.
    """
    _run("systemctl", "stop", NAME)


def purge(home: Home, users: Users) -> tuple[str, ...]:
    """Remove the device's users, unless the service of another device has them too, and its folder, its key included.

    Returns:
        The users that went.

    Raises:
        ConfigError: a user can't be removed; this can be repeated.
    """
    gone = users.names() if _other_served(home) is None else ()
    for name in gone:
        with suppress(KeyError):  # gone already: a purge that broke off
            pwd.getpwnam(name)
            _run("userdel", name)
    shutil.rmtree(home.folder)  # last, as it says who they are
    return gone


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())[-500:]}")
