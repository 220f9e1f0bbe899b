"""Worker processes of one thread each: the way to use many cores without changing a bit.

A worker makes the devices that it computes from the fleet's folder; proxy and test data are mapped files, so that no
process holds a copy of its own.
"""

from collections.abc import Callable, Mapping

from client.executors.interface import Fleet, attempt, killed, nobody
from fedstill.rounds import DeviceAnswer
from fedstill.workers import unordered


class Processes:
    """Computes devices in worker processes.

    Args:
        workers: how many; 1 computes here.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def answer(
        self, fleet: Fleet, requests: Mapping[int, bytes], told: Callable[[], None] = nobody
    ) -> dict[int, DeviceAnswer]:
        """Return the answers by device, ascending."""
        numbers = list(requests)
        calls = ((fleet, number, request) for number, request in requests.items())
        answers: dict[int, DeviceAnswer] = {}
        for place, answer in unordered(attempt, calls, self._workers, killed):
            answers[numbers[place]] = answer
            told()
        return dict(sorted(answers.items()))
