"""Who runs what on a device, and what of its folder is whose.

    agent   the agent: data, state, releases. The only one that sees any of them
    node    Flower's SuperNode, with the key by which the server knows the device
    app     what the server sends and Flower runs: whatever it is, it sees the agent's socket and nothing else

The agent's socket lies in a folder that its own user and the app's group alone may enter, and is writable for these two
alone: so the kernel checks at every connection who it is (docs/decisions/0016-device-users.md). The folder above it all
is root's, so that nobody can put something else in a place that root uses.
"""

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from client.home import Home
from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError

ROOT = "root"
NAME = r"^[a-z_][a-z0-9_-]{0,30}$"
REPAIR = "`sudo fedstill client install` puts it right"


class Users(Settings):
    """`users.toml`: system users, each with a group of the same name."""

    agent: str = Field(default="fedstill-agent", pattern=NAME)
    """Runs the agent."""
    node: str = Field(default="fedstill-node", pattern=NAME)
    """Runs Flower's SuperNode."""
    app: str = Field(default="fedstill-app", pattern=NAME)
    """Runs what the server sends."""

    def names(self) -> tuple[str, str, str]:
        """Return all of them."""
        return self.agent, self.node, self.app


@dataclass(frozen=True)
class Place:
    """A folder or a file and whose it is.

    Attributes:
        path: below the device's folder.
        user: its owner.
        group: its group.
        mode: its permissions.
        folder: whether it is a folder.
        needed: whether a device can't be without it.
    """

    path: str
    user: str
    group: str
    mode: int
    folder: bool = False
    needed: bool = True


def layout(users: Users) -> tuple[Place, ...]:
    """Return what lies in a device's folder, from above."""
    agent, node, app = users.names()
    return (
        Place("", ROOT, ROOT, 0o711, folder=True),
        Place("users.toml", ROOT, ROOT, 0o644, needed=False),  # with it the device is installed: written last
        Place("device.toml", ROOT, agent, 0o640),
        Place("limits.toml", ROOT, agent, 0o640, needed=False),
        Place("ca.crt", ROOT, ROOT, 0o644),
        Place("root.json", ROOT, agent, 0o640, needed=False),
        Place("supernode.key", node, node, 0o400),
        Place("superexec.secret", node, app, 0o440),
        Place("state", agent, agent, 0o700, folder=True),
        Place("parcels", agent, agent, 0o700, folder=True),
        Place("release", agent, agent, 0o700, folder=True),
        Place("data", ROOT, agent, 0o750, folder=True),
        Place("flwr", node, node, 0o700, folder=True),
        Place("apps", app, app, 0o700, folder=True),
        Place("logs", ROOT, ROOT, 0o750, folder=True),
        Place("run", ROOT, ROOT, 0o711, folder=True),
        Place("run/agent", agent, app, 0o2750, folder=True),  # what is made in it gets the app's group
    )


def arrange(home: Home, users: Users) -> None:
    """Make the folders and give everything to whom it belongs; only root can.

    Raises:
        ConfigError: the folder is another's, lies where others than root could exchange it, or where the users can't
            get.
    """
    check_above(home.folder)
    if home.folder.lstat().st_uid != 0:
        raise ConfigError(
            f"{home.folder}: not root's, so that links of its owner's may lie in it; choose another --home, and "
            f"--from {home.folder} if the device is there"
        )
    whole, *parts = layout(users)
    for place in (*parts, whole):  # it is opened when all in it is closed
        path = home.folder / place.path
        if place.folder:
            path.mkdir(exist_ok=True, mode=0o700)
        elif not path.exists():
            continue
        os.chown(path, pwd.getpwnam(place.user).pw_uid, grp.getgrnam(place.group).gr_gid, follow_symlinks=False)
        path.chmod(place.mode)


def check_above(folder: Path) -> None:
    """Make sure that nobody but root can move a folder, and that everybody can get to it.

    Raises:
        ConfigError: one of the folders above is another's, is writable for others, or is closed.
    """
    for above in folder.parents:
        found = above.lstat()
        if found.st_uid != 0 or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise ConfigError(f"{above}: others than root may change what is in it; choose another --home")
        if not found.st_mode & stat.S_IXOTH:
            raise ConfigError(f"{above}: the device's users can't get through it; choose another --home")


def read_users(home: Home) -> Users | None:
    """Return the users of a device; None: it has none, and one user runs everything.

    Raises:
        ConfigError: it has some, but their isolation does not hold, or this process can't start what is theirs.
    """
    if not home.users.exists():
        return None
    users = parse(Users, read_toml(home.users), str(home.users))
    if os.geteuid() != 0:
        raise ConfigError(f"{home.folder}: this device has users of its own; only root can start it (sudo)")
    check(home, users)
    return users


def check(home: Home, users: Users) -> None:
    """Make sure that everything in a device's folder is whose it should be.

    Raises:
        ConfigError: a user is missing, or something is open to whom it should not be.
    """
    if len({ROOT, *users.names()}) != 4:
        raise ConfigError(f"{home.users}: agent, node and app have to be three users, and none of them root")
    check_above(home.folder)
    for place in layout(users):
        path = home.folder / place.path
        try:
            found = path.lstat()
            owner, group = pwd.getpwnam(place.user).pw_uid, grp.getgrnam(place.group).gr_gid
        except FileNotFoundError as error:
            if not place.needed:
                continue
            raise ConfigError(f"{path}: not there; {REPAIR}") from error
        except KeyError as error:
            raise ConfigError(f"no system user or group {error}; {REPAIR}") from error
        kind = stat.S_ISDIR if place.folder else stat.S_ISREG
        if not kind(found.st_mode) or (found.st_uid, found.st_gid) != (owner, group):
            raise ConfigError(f"{path}: is not {place.user}'s (group {place.group}); {REPAIR}")
        if stat.S_IMODE(found.st_mode) != place.mode:
            raise ConfigError(f"{path}: has mode {stat.S_IMODE(found.st_mode):o}, not {place.mode:o}; {REPAIR}")
