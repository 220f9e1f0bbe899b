"""One device after the other in this process: the reference."""

from collections.abc import Mapping

from client.executors.interface import Fleet, attempt
from fedstill.rounds import DeviceAnswer
from fedstill.workers import use_one_thread


class Sequential:
    """Computes devices one by one, here."""

    def answer(self, fleet: Fleet, requests: Mapping[int, bytes]) -> dict[int, DeviceAnswer]:
        """Return the answers by device, ascending."""
        use_one_thread()
        return {number: attempt(fleet, number, requests[number]) for number in sorted(requests)}
