"""The folder in which the service keeps what must outlast it; the commands change rollouts in the same files.

`store.json` says where the releases are, `rollouts/<class>.json` what is staged for a device class, and
`telemetry.sqlite` holds what devices told.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from fedstill.config import Settings
from fedstill.errors import ConfigError
from fedstill.files import write_json
from fedstill.folders import data_folder
from fedstill.release.verify import NAME
from server.delivery.rollout import Rollout
from server.deployment.home import DELIVERY, default_home

STORE, ROLLOUTS, TELEMETRY = "store.json", "rollouts", "telemetry.sqlite"


class Service(Settings):
    """What a service was started with."""

    store: str = Field(min_length=1)
    """Its store: a URL, or an absolute path."""


def default_state() -> Path:
    """Return where a service of its own keeps its state unless told otherwise.

    Raises:
        ConfigError: neither XDG_DATA_HOME is set nor has the user a home.
    """
    return data_folder("delivery", "the service's state", "give --state")


def found_state() -> Path:
    """Return the state that commands mean unless told: the server's, or `default_state` where it never delivered.

    Raises:
        ConfigError: the user has no home to look in.
    """
    servers = default_home() / DELIVERY
    return servers if (servers / STORE).exists() else default_state()


class State:
    """A service's folder.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, tuple[tuple[int, int, int], Rollout]] = {}

    @property
    def telemetry(self) -> Path:
        """The data base of what devices told."""
        return self.folder / TELEMETRY

    def begin(self, store: str) -> None:
        """Make the folder, and note which store the service delivers from.

        Raises:
            ConfigError: the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.folder / ROLLOUTS).mkdir(exist_ok=True)
            write_json(self.folder / STORE, Service(store=store).model_dump())
        except OSError as error:
            raise ConfigError(f"{self.folder}: the service's state can't be kept here: {error.strerror}") from error

    def store(self) -> str:
        """Return the store that the service delivers from.

        Raises:
            ConfigError: no service was ever started with this folder.
        """
        path = self.folder / STORE
        try:
            return Service.model_validate_json(path.read_bytes()).store
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.folder}: no delivery service was started with this --state; `fedstill server deliver` does"
            ) from error
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{path}: can't be read; start `fedstill server deliver` again") from error

    def rollout(self, device_class: str) -> Rollout | None:
        """Return what is staged for a class, read again whenever it changed; None: nothing ever was.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self._path(device_class)
        try:
            found = path.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(device_class)
            if known is None or known[0] != mark:
                known = mark, Rollout.model_validate_json(path.read_bytes())
                self._read[device_class] = known
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{path}: no rollout can be read from it; repair it or take it away") from error
        return known[1]

    def change(self, device_class: str, change: Callable[[Rollout | None], Rollout | None]) -> Rollout | None:
        """Change what is staged for a class while nobody else does; None from `change` leaves it as it is.

        Raises:
            ConfigError: the file is damaged or can't be written.
        """
        with self._lock():
            rollout = change(self.rollout(device_class))
            if rollout is not None:
                write_json(self._path(device_class), rollout.model_dump(mode="json"))
        return rollout

    def _path(self, device_class: str) -> Path:
        if not NAME.fullmatch(device_class):
            raise ConfigError(f"{device_class!r} is no device class")
        return self.folder / ROLLOUTS / f"{device_class}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with (self.folder / ".lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise ConfigError(f"{self.folder}: can't be written: {error.strerror}") from error
