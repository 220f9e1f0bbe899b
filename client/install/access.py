"""What the device's users can reach: asked of the kernel, by a process of theirs, not read off permissions."""

import subprocess
import sys
from pathlib import Path

from client.data import read_description
from client.home import DeviceConfig, Home
from client.install.layout import Users
from fedstill.errors import ConfigError

TIMEOUT = 120.0


def _as(user: str, command: list[str]) -> bool:
    """Return whether a command succeeds as a user."""
    try:
        done = subprocess.run(
            command, user=user, group=user, extra_groups=[], cwd="/", capture_output=True, timeout=TIMEOUT, check=False
        )
    except PermissionError:  # of the command itself
        return False
    return done.returncode == 0


def check_code(users: Users) -> None:
    """Make sure that the users can run what is installed.

    Raises:
        ConfigError: one can't.
    """
    for user in users.names():
        if not _as(user, [sys.executable, "-P", "-c", "import client.home"]):
            raise ConfigError(
                f"user {user} can't run {sys.executable}; install Fedstill where every user can, for example in "
                "an environment below /opt (docs/pi.md), and use that one"
            )


def check_data(config: DeviceConfig, users: Users, home: Home) -> None:
    """Make sure that the device's data can be read by the agent and by none of the others.

    Raises:
        ConfigError: they can't, or they can.
    """
    if config.data:
        description = Path(config.data)
        found = read_description(description)
        parts = [description, *(Path(part) for part in (found.path, found.test) if part)]
        if found.format == "csv":  # the images that a table names lie beside it
            parts += [part.parent for part in parts[1:]]
        for path in parts:
            _check_private(path.resolve(), users, home)
    for public in (config.proxy, config.backbone):
        if public and not _as(users.agent, ["test", "-r", public]):
            raise ConfigError(f"{public}: user {users.agent} can't read it; open it to all, or move it")


def _check_private(path: Path, users: Users, home: Home) -> None:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    place = home.folder / "data"
    for user in (users.node, users.app):
        # A folder that can be entered gives away files whose names can be guessed.
        if any(_as(user, ["test", flag, str(path)]) for flag in ("-r", "-w", "-x")):
            raise ConfigError(
                f"{path}: user {user}, who runs what the server sends, can get at it; move your data to {place}, or "
                f"close them: chmod o-rwx {folder}"
            )
    if not _as(users.agent, ["test", "-r", str(path)]):
        raise ConfigError(
            f"{path}: user {users.agent} can't read it; move your data to {place}, or open them to this user alone: "
            f"chgrp -R {users.agent} {folder} && chmod -R g+rX {folder}"
        )
