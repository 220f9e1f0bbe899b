"""The folder of a device: its state, its trusted root, the slots, the queue of reports, and who may touch them when.

root.json       the root that this device trusts; put there by its owner, replaced only by its successors
state.json      see `client.updates.state`
slots/<v>/      releases: the running one, the last good one, and one on its way
reports/        what the server has not been told yet
reserve         room on the disk for one more state.json, should it be full when a release has to be left
update.lock     held by the one updater
predict.lock    held by the one prediction server
state.lock      held for the moment of a change
"""

import errno
import fcntl
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from client.updates.state import State
from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from fedstill.folders import data_folder

ROOT, STATE, SLOTS, REPORTS, RESERVE = "root.json", "state.json", "slots", "reports", "reserve"
RESERVED = 64 * 1024  # bytes, several times those of a state
FULL = (errno.ENOSPC, errno.EDQUOT)


def default_home() -> Path:
    """Return the device's folder: `FEDSTILL_HOME`, or `fedstill/device` in the user's data folder.

    Raises:
        ConfigError: neither is set, and the user has no home.
    """
    return data_folder("device", "the device's state", "set FEDSTILL_HOME or give --home", "FEDSTILL_HOME")


@dataclass(frozen=True)
class Home:
    """A device's folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    def slot(self, version: int) -> Path:
        """Return the folder of a release."""
        return self.folder / SLOTS / str(version)

    def state(self) -> State:
        """Return the state.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        path = self.folder / STATE
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise self._absent() from error
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{path}: can't be read as a device's state; put back a copy of it") from error

    def make(self, device_id: str | None = None) -> None:
        """Make the folder and a first state, if there is none.

        Args:
            device_id: what the device is called from now on; None: what it is called already, else a random name.

        Raises:
            ConfigError: the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._changing():
                if not (self.folder / STATE).exists():
                    self._write(State(device_id=device_id or uuid.uuid4().hex))
            if device_id is not None:
                self.change(lambda state: state.model_copy(update={"device_id": device_id}))
        except OSError as error:
            raise ConfigError(f"{self.folder}: can't keep a device's state here: {error.strerror}") from error

    def change(self, edit: Callable[[State], State]) -> State:
        """Replace the state by what `edit` makes of it, and return it; on disk is the old one or the new one.

        Raises:
            ConfigError: it can't be read.
            OSError: it can't be written; the old one holds.
        """
        with self._changing():
            before = self.state()
            after = edit(before)
            if after != before:
                self._write(after)
            return after

    def sweep(self, keep: int) -> None:
        """Remove what killed processes left, and the slots that neither the state names nor `keep` is the number of."""
        with self._changing():
            for rubbish in self.folder.glob(".*.tmp"):
                rubbish.unlink(missing_ok=True)
            wanted = {str(version) for version in (*self.state().named(), keep)}
            for slot in (self.folder / SLOTS).glob("*"):
                if slot.name not in wanted:
                    shutil.rmtree(slot, ignore_errors=True)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Be the only updater.

        Raises:
            ConfigError: another one is at work.
        """
        with self._alone("update.lock", "another updater is at work here"):
            yield

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Be the only prediction server.

        Raises:
            ConfigError: another one is at work.
        """
        with self._alone("predict.lock", "another `fedstill client predict` serves this device", patience=20):
            yield

    def served(self) -> bool:
        """Return whether a prediction server is at work: then it watches new releases, with the requests it gets."""
        try:
            with self._alone("predict.lock", "", fcntl.LOCK_SH):  # those who ask don't mistake each other for one
                return False
        except ConfigError:
            return True

    @contextmanager
    def _alone(self, name: str, reason: str, how: int = fcntl.LOCK_EX, patience: int = 0) -> Iterator[None]:
        with self._open(name) as file:
            for tries in range(patience, -1, -1):  # whoever asks whether somebody serves holds a lock for a moment
                try:
                    fcntl.flock(file, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if not tries:
                        raise ConfigError(f"{self.folder}: {reason}") from error
                    time.sleep(0.05)
            yield

    def _open(self, lock: str) -> TextIO:
        try:
            return (self.folder / lock).open("w")
        except FileNotFoundError as error:
            raise self._absent() from error
        except OSError as error:
            raise ConfigError(f"{self.folder}: can't keep a device's state here: {error.strerror}") from error

    def _absent(self) -> ConfigError:
        return ConfigError(f"{self.folder}: no device here yet; begin with `fedstill client trust`")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._open("state.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, state: State) -> None:
        content, reserve = state.model_dump_json(indent=1).encode(), self.folder / RESERVE
        try:
            write_atomic(self.folder / STATE, content)
        except OSError as error:
            if error.errno not in FULL or not reserve.exists():
                raise
            reserve.unlink()  # what it was kept for: a full disk must not keep a device on a release that failed
            write_atomic(self.folder / STATE, content)
        if not reserve.exists():
            with suppress(OSError):
                write_atomic(reserve, bytes(RESERVED))
