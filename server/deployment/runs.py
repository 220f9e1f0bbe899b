"""Runs on the fleet: prepared here, begun through Flower's control API, followed until they end.

What a scenario is, the server does not know: it is loaded by name, from the room that does.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedstill.errors import ConfigError, RunFolderError
from fedstill.files import write_atomic, write_json
from fedstill.loading import load_object
from fedstill.plan import RUN_NAME
from fedstill.rounds import Owner, absent
from server.deployment.bundle import write_bundle
from server.deployment.control import Control
from server.deployment.home import DRAINING, NEWEST_RUN, ServerHome
from server.release.keys import open_keys

PREPARE = "simulations.deployed:prepare"
RUN_CONFIG = "simulations.deployed:run_config"
PARCELS = "simulations.deployed:parcels"
HOST = "client.shim:build"
RECORD, ROUNDS, SUMMARY = "run.json", "rounds.jsonl", "summary.json"
PAUSED = "paused"
"""File in a run folder: the run ended between two rounds because its server drains."""
POLL = 1.0
STATUS_EVERY = 30.0
"""Seconds between questions for a run's status, each of which costs a process."""
SOON = 3.0
"""The same while the server drains."""


@dataclass(frozen=True)
class Record:
    """What the server alone knows of a run: a run configuration is everybody's.

    Attributes:
        run: the name by which devices know it.
        keys: folder of the keys that sign releases.
        owners: node id and class of each device.
        home: the server's folder.
    """

    run: str
    keys: Path
    owners: Mapping[int, Owner]
    home: Path

    def content(self) -> dict[str, object]:
        """Return it as JSON can hold it; node ids have 64 bits."""
        owners = {str(device): [str(one.node), one.device_class] for device, one in self.owners.items()}
        return {"run": self.run, "keys": str(self.keys), "owners": owners, "home": str(self.home)}


def read_record(out: Path) -> Record:
    """Read the record in a run folder.

    Raises:
        RunFolderError: there is none.
    """
    try:
        raw = json.loads((out / RECORD).read_text())
        owners = {int(device): Owner(int(node), str(kind)) for device, (node, kind) in raw["owners"].items()}
        found = Record(str(raw["run"]), Path(raw["keys"]), owners, Path(raw["home"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{out}: no run of this server here") from error
    if re.fullmatch(RUN_NAME, found.run) is None:
        raise RunFolderError(f"{out / RECORD}: no proper name of a run")
    return found


@dataclass(frozen=True)
class Runs:
    """The runs of a server.

    Attributes:
        home: the server's folder.
        keys: folder of the keys that sign releases.
    """

    home: ServerHome
    keys: Path

    def prepare(self, scenario: str, changes: Iterable[str], out: Path, fleet: Mapping[int, str]) -> None:
        """Begin the folder of a new run.

        Raises:
            FedstillError: the scenario, its data or the folder can't be used.
        """
        load_object(PREPARE)(scenario, changes, out, fleet, self.keys)
        write_json(out / RECORD, self._record(f"run-{secrets.token_hex(8)}", {}).content())

    def _record(self, name: str, owners: Mapping[int, Owner]) -> Record:
        return Record(name, self.keys, owners, self.home.folder.resolve())

    def start(self, out: Path, owners: Mapping[int, Owner]) -> int:
        """Start what is missing of the run in a folder, and return its number at Flower.

        Devices know the run by a name that stays, so that each goes on from its own state.

        Args:
            out: the run folder.
            owners: node id and class of each device.

        Raises:
            RunFolderError: there is no run in the folder.
            ConfigError: the SuperLink refuses or can't be reached, or the server drains.
        """
        self.check_open()
        # Here: commands that publish nothing are to load without a store's packages.
        from server.release.parcels import publish_parcel

        record = read_record(out)
        write_json(out / RECORD, self._record(record.run, owners).content())
        store, keys = str(self.home / "store"), open_keys(self.keys)
        for kind, path in load_object(PARCELS)(out):
            publish_parcel(path, kind, store, keys)
        config = {**load_object(RUN_CONFIG)(out), "host": HOST, "run": record.run}
        write_atomic(self.home / NEWEST_RUN, str(out).encode())
        (out / PAUSED).unlink(missing_ok=True)
        self.check_open()  # a run that begins all the same, at this very moment, pauses itself
        return Control(self.home).start(write_bundle(self.home / "bundle"), config)

    def check_open(self) -> None:
        """Make sure that runs may begin.

        Raises:
            ConfigError: the server drains.
        """
        if self.home.draining:
            raise ConfigError("the server drains: no run begins before `fedstill server drain --off`")

    def close(self) -> None:
        """Let no run begin from now on; those that are active end after their round.

        Raises:
            ConfigError: that can't be noted.
        """
        try:
            write_atomic(self.home / DRAINING, b"")
        except OSError as error:
            raise ConfigError(f"{self.home / DRAINING}: {error.strerror}; the server does not drain") from error

    def wait_until_idle(self, say: Callable[[str], None]) -> None:
        """Wait until no run is active, and tell what is waited for."""
        told = ""
        while waiting := self._waiting():
            if waiting != told:
                say(f"waiting: {waiting}")
            told = waiting
            time.sleep(SOON)

    def _waiting(self) -> str:
        """Return what stands in the way of a drained server; empty: nothing."""
        try:
            active = [str(run.run_id) for run in Control(self.home).runs() if not run.status.startswith("finished")]
        except ConfigError as error:
            return f"{error} (no run begins meanwhile)"
        return f"for the end of the round of run {', '.join(active)}" if active else ""

    def open(self) -> None:
        """Let runs begin again."""
        (self.home / DRAINING).unlink(missing_ok=True)

    def follow(self, out: Path, run_id: int, say: Callable[[str], None]) -> bool:
        """Tell each finished round until the run ends; return whether it is complete, not only paused.

        Raises:
            ConfigError: it ended without its summary, and nobody asked it to.
        """
        control, told, asked = Control(self.home), 0, time.monotonic()
        while True:
            ended, paused = (out / SUMMARY).exists(), (out / PAUSED).exists()
            rounds = (out / ROUNDS).read_text().splitlines() if (out / ROUNDS).exists() else []
            for line in rounds[told:]:
                say(describe(json.loads(line)))
            told = len(rounds)
            if ended:
                return True
            if paused:
                say(f"paused after {told} rounds; continue with `fedstill server run --resume {out}`")
                return False
            if time.monotonic() - asked > STATUS_EVERY:
                status = _status(control, run_id, say)
                left = any((out / name).exists() for name in (SUMMARY, PAUSED))
                if status.startswith(("finished", "gone")) and not left:
                    raise ConfigError(
                        f"run {run_id} ended ({status}) after {told} rounds{self._reason(control, run_id)}; continue "
                        f"with `fedstill server run --resume {out}`"
                    )
                asked = time.monotonic()
            time.sleep(POLL)

    def _reason(self, control: Control, run_id: int) -> str:
        """Keep what the ServerApp said, and return why it ended, as far as is known."""
        said, path = control.log(run_id), self.home / "logs" / f"run-{run_id}.log"
        if not said:
            return ""
        with suppress(OSError):
            write_atomic(path, said.encode())
        reason = reason_in(said)
        return f": {reason} ({path})" if reason else f" ({path})"


def reason_in(log: str) -> str:
    """Return the last exception that a log tells, with its message; empty: it tells none."""
    found = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", log, flags=re.MULTILINE)
    return str(found[-1]) if found else ""


def _status(control: Control, run_id: int, say: Callable[[str], None]) -> str:
    """Return a run's status; empty while nobody tells it: a SuperLink that was killed comes back and goes on."""
    try:
        return next((run.status for run in control.runs() if run.run_id == run_id), "gone")
    except ConfigError as error:
        say(f"waiting: {error}")
        return ""


def describe(row: Mapping[str, object]) -> str:
    """Return a line about a finished round."""
    released, refused = row["released_accuracy"], row["refused"]
    assert isinstance(released, dict)
    assert isinstance(refused, dict)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in released.items())
    away = absent(refused)
    failed = len(refused) - away
    left_out = (f", {failed} not used" if failed else "") + (f", {away} absent" if away else "")
    return f"round {row['round']}: {row['answers']} answers{left_out}; students {scores}"
