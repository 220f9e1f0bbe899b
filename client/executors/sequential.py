"""One device after the other in this process: the reference."""

from collections.abc import Callable, Mapping

from client.executors.interface import Fleet, attempt, nobody
from fedstill.rounds import DeviceAnswer
from fedstill.workers import prepare_torch


class Sequential:
    """Computes devices one by one, here."""

    def answer(
        self, fleet: Fleet, requests: Mapping[int, bytes], told: Callable[[], None] = nobody
    ) -> dict[int, DeviceAnswer]:
        """Return the answers by device, ascending."""
        prepare_torch()
        answers = {}
        for number in sorted(requests):
            answers[number] = attempt(fleet, number, requests[number])
            told()
        return answers
