"""What an executor is given and what it returns, and how a failing device is told."""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from client.device import Device
from fedstill import packet
from fedstill.errors import FedstillError
from fedstill.failures import told
from fedstill.rounds import DeviceAnswer

log = logging.getLogger("fedstill")


class Fleet(Protocol):
    """A host's devices; it pickles as little more than a path, so that a worker makes the devices that it computes."""

    def answer(self, number: int, request: bytes) -> DeviceAnswer:
        """Let device `number` answer a request."""

    def device(self, number: int) -> Device | None:
        """Return device `number`; None where devices are no such objects and can only answer one by one."""

    def student(self, number: int) -> str:
        """Return the architecture of device `number`'s student."""

    def leaving(self, device: Device, answer: DeviceAnswer) -> DeviceAnswer:
        """Return what leaves the host when a device gives this answer."""


def nobody() -> None:
    """Hear that a device has answered, and do nothing."""


class Executor(Protocol):
    """Computes a host's devices."""

    def answer(
        self, fleet: Fleet, requests: Mapping[int, bytes], told: Callable[[], None] = nobody
    ) -> dict[int, DeviceAnswer]:
        """Return the answer of each device that is asked, by device.

        A device that fails is named in a refusal with its round, stage and batch, and the others answer all the same.

        Args:
            fleet: the devices.
            requests: serialized requests by device, in the order in which to begin them.
            told: called in this process once for each device that has answered.

        Raises:
            FedstillError: what is wrong is wrong for all devices, such as the configuration.
        """


def attempt(fleet: Fleet, number: int, request: bytes) -> DeviceAnswer:
    """Return a device's answer, or the refusal that names it when it fails; runs in a worker."""
    try:
        return fleet.answer(number, request)
    except FedstillError:
        raise
    except Exception as error:
        return failed(number, request, error)


def killed(fleet: Fleet, number: int, request: bytes) -> DeviceAnswer:
    """Return the refusal that names a device whose worker process gets killed each time it computes it."""
    return failed(number, request, RuntimeError("its worker process was killed, perhaps for want of memory"))


def failed(number: int, request: bytes, error: Exception) -> DeviceAnswer:
    """Return the refusal of a device that failed; it tells no version, so that it gets everything the next time."""
    reason = f"failed in round {packet.round_of(request)}, {told(error)}"
    log.debug("device %d %s", number, reason, exc_info=error)
    return DeviceAnswer(b"", {}, f"device {number} {reason}")
