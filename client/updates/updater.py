"""The updater: asks, trusts, fetches, tries, switches, watches. Its order is its promise.

 1. metadata: signatures, hashes, class, expiry and versions, before a byte of a model is asked for
 2. download into a slot that no state names
 3. the whole folder is verified again, as it lies on the disk
 4. trial: self-test and benchmark in processes of their own
 5. switch: one rename of one file
 6. watch: then the release is kept, or the device goes back by itself

A version that failed in 4 or 6 is remembered and not tried again with the same runtime. What failed in 1 to 3 is the
path's fault as likely as the release's, and blames no version.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from tuf.api.metadata import Timestamp

from client.predict.student import runtime_version, sha256
from client.updates.clock import Moment, moment
from client.updates.delivery import Server
from client.updates.download import Step, complete, prepare
from client.updates.home import ROOT, Home
from client.updates.rehearsal import Rehearsal, rehearse
from client.updates.state import Failed, Installed, State
from client.updates.telemetry import Figures, enqueue, flush
from client.updates.trial import Trial, try_release
from client.updates.watch import Rules, give_up
from fedstill.errors import ConfigError, ReleaseError, UpdateError
from fedstill.failures import plain
from fedstill.files import write_atomic
from fedstill.release.manifest import MANIFEST
from fedstill.release.trust import Trust
from fedstill.release.verify import METADATA, Signed, digest, verify_folder, verify_metadata
from protos.delivery_pb2 import (
    OUTCOME_COMMITTED,
    OUTCOME_INSTALLED,
    OUTCOME_REFUSED,
    OUTCOME_ROLLED_BACK,
    NewestReply,
    NewestRequest,
)

ROOTS = 100  # newer roots that one answer may bring


class Kind(Enum):
    """What a look for updates led to."""

    NOTHING = "nothing to do"
    WAITING = "waiting"
    SWITCHED = "switched"
    KEPT = "kept"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class Result:
    """What a look for updates led to.

    Attributes:
        kind: in a word.
        detail: one line for people.
    """

    kind: Kind
    detail: str


def read_trust(home: Home) -> Trust:
    """Return the device's trusted root.

    Raises:
        ConfigError: it has none, or it is damaged: then nothing is installed.
    """
    path = home.folder / ROOT
    try:
        return Trust.load(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{home.folder}: no trusted root, so nothing is installed; `fedstill client trust ROOT_FILE` with the "
            f"root.json of the installation that signs your releases"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ReleaseError as error:
        raise ConfigError(str(error)) from error


def _nothing(name: str) -> None:
    pass


@dataclass(frozen=True)
class Updater:
    """Keeps a device's release up to date.

    Attributes:
        home: of the device.
        server: to ask.
        device_class: of this device.
        rules: when a new release is kept.
        now: the device's clock.
        trial: of a release that has arrived.
        rehearsal: watches one that was switched to where no prediction server is at work.
        step: called at each step with its name.
    """

    home: Home
    server: Server
    device_class: str
    rules: Rules = field(default_factory=Rules)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    trial: Trial = try_release
    rehearsal: Rehearsal = rehearse
    step: Step = _nothing

    def check(self) -> Result:
        """Look for an update once, bring it to an end, and tell the server what happened.

        Raises:
            ConfigError: no trusted root, another class, or another updater at work.
            ReleaseError: what the server offers is not to be trusted.
            UpdateError: the server can't be reached, sends other bytes than those signed, or the disk is full.
        """
        with self.home.updating():
            try:
                self._claim()
                trust = read_trust(self.home)
                settled = self._watch()
                result = self._look(trust, settled)
            except OSError as error:
                raise UpdateError(
                    f"{self.home.folder}: {error.strerror or error}; what runs goes on running"
                ) from error
            finally:
                self._tell()
            return result

    def _claim(self) -> None:
        found = self.home.change(
            lambda state: state if state.device_class else state.model_copy(update={"device_class": self.device_class})
        )
        if found.device_class != self.device_class:
            raise ConfigError(
                f"{self.home.folder}: this is a device of class {found.device_class}, not {self.device_class}; "
                f"use another folder (--home) for another class"
            )

    def _look(self, trust: Trust, settled: Result | None) -> Result:
        state = self.home.state()
        runs = state.running.version if state.running else 0
        reply = self.server.newest(
            NewestRequest(
                device_class=self.device_class,
                device_id=state.device_id,
                installed_version=runs,
                root_version=trust.version,
            )
        )
        trust = self._follow(trust, reply)
        if reply.withdrawn and state.good:
            return self._withdraw(state)
        if not reply.granted:
            return settled or Result(Kind.NOTHING, f"nothing for this device now: {plain(reply.reason, 200)}")
        if reply.version <= runs < state.highest_release:
            # It went back from a newer release, and the server is where this device is: signed long ago, but no replay.
            return settled or Result(Kind.NOTHING, f"version {runs} runs, and nothing newer is offered")
        state, time = self.home.state(), moment(self.now(), state.seen)
        signed = self._signed(trust, reply, state, time)
        self.step("metadata verified")
        if signed.version <= runs:
            if time.clock:
                self._remember(signed, time)
            if state.running and not state.watched and state.running.version == signed.version:
                settled = self._mend(state.running, trust, reply, signed, time) or settled
            return settled or Result(Kind.NOTHING, f"version {runs} is the newest")
        newer = signed.timestamp_version > state.highest_timestamp > 0
        if not (time.clock or newer or signed.timestamp_version == state.evidence):
            return Result(
                Kind.WAITING,
                f"the clock can't be right ({self.now():%Y-%m-%d %H:%M}); version {signed.version} waits for the time, "
                f"or for a newer signed timestamp",
            )
        self._remember(signed, time)
        self.step("versions remembered")
        reason = state.failure(signed.version, runtime_version())
        if reason:
            return settled or Result(Kind.NOTHING, f"version {signed.version} failed here before: {reason}")
        if state.watched:
            return settled or Result(Kind.WAITING, f"version {signed.version} waits for the watch to end")
        return self._install(trust, reply, signed, time)

    def _follow(self, trust: Trust, reply: NewestReply) -> Trust:
        """Follow the trusted root to its successors, each signed by the keys of both."""
        for content in reply.roots[:ROOTS]:
            before = trust
            trust = trust.follow(content)
            roles = [root.root.signed.roles[Timestamp.type].keyids for root in (before, trust)]
            if roles[0] != roles[1]:
                # Whoever had the old key could have named any number: with new keys counting begins anew (TUF 5.3.11).
                self.home.change(lambda state: state.model_copy(update={"highest_timestamp": 0}))
            write_atomic(self.home.folder / ROOT, trust.content)
            self.step("root followed")
        return trust

    def _signed(self, trust: Trust, reply: NewestReply, state: State, time: Moment) -> Signed:
        least = (state.highest_release, state.highest_timestamp)
        signed = verify_metadata(trust, reply.timestamp, reply.snapshot, reply.targets, time.time, least)
        if signed.device_class != self.device_class:
            raise ReleaseError(f"a release for {signed.device_class}, this device is of class {self.device_class}")
        return signed

    def _remember(self, signed: Signed, time: Moment) -> None:
        known = {"highest_release": signed.version, "highest_timestamp": signed.timestamp_version}
        how = {"seen": time.time.timestamp()} if time.clock else {"evidence": signed.timestamp_version}
        self.home.change(lambda state: state.model_copy(update={**known, **how}))

    def _install(self, trust: Trust, reply: NewestReply, signed: Signed, time: Moment) -> Result:
        folder = self.home.slot(signed.version)
        self.home.sweep(keep=signed.version)
        prepare(folder, dict(zip(METADATA, (reply.timestamp, reply.snapshot, reply.targets), strict=True)), signed)
        self.step("slot prepared")
        complete(folder, signed, self.server, self.step)
        self.step("downloaded")
        try:
            manifest, _ = verify_folder(folder, trust, time.time)
        except ReleaseError:
            self.home.sweep(keep=0)  # a slot that is not what was signed is of no use: the next look begins anew
            raise
        self.step("folder verified")
        try:
            chosen = self.trial(folder, manifest)
        except ReleaseError as error:
            failure = Failed(version=signed.version, reason=str(error), onnxruntime=runtime_version())
            self.home.change(lambda state: state.refused(failure))
            self.step("refused")
            self.home.sweep(keep=0)
            enqueue(self.home, signed.version, OUTCOME_REFUSED, str(error))
            return Result(Kind.REFUSED, f"version {signed.version}: {error}")
        self.step("tried")
        hashes = {MANIFEST: signed.files[MANIFEST][1], chosen.file: signed.files[chosen.file][1]}
        installed = Installed(version=signed.version, file=chosen.file, sha256=hashes)
        self.home.change(lambda state: state.switched(installed))
        self.step("switched")
        figures = Figures(chosen.measured.milliseconds, chosen.measured.peak_rss)
        enqueue(self.home, signed.version, OUTCOME_INSTALLED, chosen.detail, chosen.file, figures)
        watched = self._watch() or Result(Kind.SWITCHED, f"version {signed.version} runs and is watched")
        clock = "" if time.clock else "; no clock, its newer signed timestamp is the evidence of the time"
        return Result(watched.kind, f"{watched.detail}; {chosen.detail}{clock}")

    def _mend(
        self, running: Installed, trust: Trust, reply: NewestReply, signed: Signed, time: Moment
    ) -> Result | None:
        """Fetch anew what went bad on the disk of the release that runs; None: nothing did. The state stays."""
        folder = self.home.slot(running.version)
        paths = {folder / name: expected for name, expected in running.sha256.items()}
        if all(path.is_file() and sha256(path) == expected for path, expected in paths.items()):
            return None
        for name, expected in signed.files.items():
            if (folder / name).is_file() and digest(folder / name) != expected:
                (folder / name).unlink()
        prepare(folder, dict(zip(METADATA, (reply.timestamp, reply.snapshot, reply.targets), strict=True)), signed)
        complete(folder, signed, self.server, self.step)
        verify_folder(folder, trust, time.time)
        return Result(Kind.KEPT, f"version {running.version} had gone bad on the disk and was fetched anew")

    def _watch(self) -> Result | None:
        """Bring a watch to its end, unless the prediction server does; None: nothing is watched, or that one does."""
        state = self.home.state()
        if not state.watched or state.running is None or self.home.served():
            return None
        version = state.running.version
        self.step("watching")
        reason = self.rehearsal(self.home, self.rules)
        if reason:
            give_up(self.home, version, reason)
            self.step("rolled back")
            enqueue(self.home, version, OUTCOME_ROLLED_BACK, reason, state.running.file)
            return Result(Kind.ROLLED_BACK, f"version {version}: {reason}")
        self.home.change(lambda state: state.committed(version, {}))
        self.step("committed")
        enqueue(self.home, version, OUTCOME_COMMITTED, "", state.running.file)
        return Result(Kind.KEPT, f"version {version} runs ({state.running.file})")

    def _withdraw(self, state: State) -> Result:
        """Go back from a withdrawn release; never further than to one that was kept on this device."""
        assert state.running is not None
        version = state.running.version
        give_up(self.home, version, "withdrawn by the server")
        enqueue(self.home, version, OUTCOME_ROLLED_BACK, "withdrawn by the server", state.running.file)
        return Result(Kind.ROLLED_BACK, f"version {version} is withdrawn; version {state.good[0].version} runs again")

    def _tell(self) -> None:
        """Send the queue; what can't be sent now goes with the next look."""
        try:
            flush(self.home, self.server.report)
        except (UpdateError, OSError):  # a disk that can't be written: what was sent is sent again, and counts once
            return
