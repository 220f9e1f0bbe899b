"""What the agent does for a run: check its plan, build the device that it describes, and let it answer.

Run and plan come from whoever controls the server. A plan names no code to load, a run's name is no path, a run keeps
the plan that it came with, and a device keeps the states of the newest runs alone, so that many names don't fill its
disk. The limits of the device's owner say when it trains: outside them it is absent from a round.
What goes wrong with the device's own files is told in its log, not to the server: paths are nobody else's business.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from client.data import LocalData, load, read_description
from client.home import PAUSED, DeviceConfig, Home
from client.learner import DeviceData, Learner
from client.learners import learner
from client.limits import Gate, read_limits
from client.parcels import Parcels
from client.states import has_state
from client.timekeeping import local_time
from client.updates.delivery import Access
from fedstill import packet
from fedstill.errors import ConfigError, DataError, FedstillError, ReleaseError
from fedstill.files import keep_newest, write_atomic
from fedstill.plan import DIGEST_BYTES, RUN_NAME, ClassPlan, DevicePlan
from fedstill.release.backbone import Backbone, open_backbone
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import Images, Task

log = logging.getLogger("fedstill")
KEPT_RUNS = 2
PLAN = "plan.json"


class Carrier:
    """The device of this machine, kept warm between messages.

    Args:
        home: its folder.

    Raises:
        ConfigError: there is no device in it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._config: DeviceConfig = home.config()
        self._device: tuple[str, Learner] | None = None
        self._absence: str | None = None
        self._gate = Gate(home.folder, now=partial(local_time, home))

    def devices(self) -> Mapping[int, str]:
        """Return the class of this machine's device, by its number."""
        return {self._config.number: self._config.device_class}

    def answer(self, run: str, plan: str, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        """Return the answers to a round's requests; what is not about this device is refused.

        Args:
            run: name of the run.
            plan: JSON of its `fedstill.plan.DevicePlan`.
            requests: serialized requests by device.
        """
        answers: dict[int, DeviceAnswer] = {}
        for number, request in sorted(requests.items()):
            if number != self._config.number:
                answers[number] = DeviceAnswer(b"", {}, f"device {number} is not here")
                continue
            try:
                device = self._opened(run, plan)
                paused = self._paused()
                if paused and not has_state(self._home.state / run, packet.round_of(request)):
                    answers[number] = DeviceAnswer(b"", {}, absence=paused)
                else:
                    answers[number] = device.answer(request)
            except DataError as error:
                log.error("run %s: %s", run, error)
                answers[number] = DeviceAnswer(b"", {}, "the device's data or proxy set can't be used; see its log")
            except FedstillError as error:
                log.error("run %s: %s", run, error)
                answers[number] = DeviceAnswer(b"", {}, str(error))
            except Exception:  # a full disk, a layer that does not fit: what it says may hold paths
                log.exception("run %s", run)
                answers[number] = DeviceAnswer(b"", {}, "the device failed; its log says why")
        return answers

    def _paused(self) -> str:
        """Return why the device trains no round now, and keep it for `fedstill client status`; empty: it may train."""
        try:
            why = self._gate.closed(read_limits(self._home))
        except ConfigError as error:  # better not at all than without the owner's limits
            log.error("%s", error)
            why = "its limits can't be read"
        told = self._home.agent_run / PAUSED
        if why != self._absence:  # nothing is written while nothing changes
            self._absence = why
            if why:
                log.info("absent from rounds: %s", why)
            with suppress(OSError):  # a full disk is one of the reasons
                told.write_text(f"{why}\n") if why else told.unlink(missing_ok=True)
        return why

    def _opened(self, run: str, plan: str) -> Learner:
        if re.fullmatch(RUN_NAME, run) is None:
            raise ConfigError("the run has no proper name")
        key = hashlib.sha256(f"{run} {plan}".encode()).hexdigest()
        if self._device is None or self._device[0] != key:
            folder = self._home.state / run
            found = DevicePlan.read(plan)
            self._check_plan(folder, found)
            device = self._build(found, folder)
            write_atomic(folder / PLAN, plan.encode())
            keep_newest(self._home.state, folder, KEPT_RUNS)
            self._device = (key, device)
        return self._device[1]

    @staticmethod
    def _check_plan(folder: Path, plan: DevicePlan) -> None:
        # By what they say, not as text: a server that was upgraded in mid-run names settings that it did not know.
        known = folder / PLAN
        if known.exists() and DevicePlan.read(known.read_text()) != plan:
            raise ConfigError("the run's plan is not the one that it began with")

    def _build(self, plan: DevicePlan, folder: Path) -> Learner:
        own = plan.classes.get(self._config.device_class)
        if own is None:
            raise ConfigError(f"the run has no student for class {self._config.device_class}")
        kind = own.learner or "torch"
        if kind == "torch":
            _check_built_in(own.student)
        task = plan.task.task()
        data = self._data(task)
        return learner(
            kind,
            own.student,
            None if kind == "torch" else self._backbone(own, task),
            number=self._config.number,
            task=task,
            context=packet.Context(plan.seed, bytes.fromhex(plan.proxy_digest), plan.proxy_size, task.classes),
            settings=plan.device,
            uplink=own.uplink,
            data=DeviceData(
                data.private.images, data.private.labels, self._proxy(plan), data.test.images, data.test.labels
            ),
            folder=folder,
            entropy_coded=plan.entropy_coding,
            delta=plan.delta,
        )

    def _data(self, task: Task) -> LocalData:
        if not self._config.data:
            raise DataError(f"{self._home.config_path}: no data; give the path of their description as 'data'")
        try:
            return load(read_description(Path(self._config.data)), task)
        except ConfigError as error:
            raise DataError(str(error)) from error  # about the device's own files, so not for the server

    def _backbone(self, plan: ClassPlan, task: Task) -> Backbone:
        """Load the class's backbone, which must be the run's, byte for byte."""
        path = self._file("backbone", self._config.backbone, plan.backbone or "")
        try:
            return open_backbone(path, plan.backbone or "", task)
        except ReleaseError as error:
            raise DataError(str(error)) from error

    def _file(self, kind: str, given: str, sha256: str) -> Path:
        """Return where a file is that the run needs: where the device's owner says, or else a parcel."""
        if given:
            return Path(given)
        if not self._config.delivery:
            raise DataError(f"{self._home.config_path}: no {kind}; give its path as {kind!r}")
        access = Access(self._config.delivery, ca=self._home.authority)
        device = f"device-{self._config.number}"
        return Parcels(self._home.parcels, self._home.root, access, device).path(kind, sha256)

    def _proxy(self, plan: DevicePlan) -> Images:
        """Map the proxy set, which must be the run's, byte for byte."""
        path = self._file("proxy", self._config.proxy, plan.proxy_digest)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()[:DIGEST_BYTES]
            if digest.hex() != plan.proxy_digest:
                raise DataError(f"{path}: this is not the run's proxy set: {digest.hex()}, not {plan.proxy_digest}")
            images: Images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: the proxy set can't be read: {error}") from error
        if images.dtype != np.uint8 or images.shape != (plan.proxy_size, *plan.task.input_shape):
            raise DataError(f"{path}: the proxy set is {images.dtype} {list(images.shape)}")
        return images


def _check_built_in(student: str) -> None:
    """Make sure that a plan's architecture is one of this package's.

    Raises:
        ConfigError: it is not.
    """
    from fedstill.models import ARCHITECTURES  # with torch, which a device of another learner has not

    if student not in ARCHITECTURES:
        raise ConfigError(f"architecture {student!r} is not built in; a device loads no other")
