"""Worker processes of one thread each: the way to use many cores without changing a bit.

A worker makes the devices that it computes from the fleet's folder; proxy and test data are mapped files, so that no
process holds a copy of its own. Small devices cross to a worker several at a time: handing one over takes about a
millisecond, a fifth of what a small dense student's round does.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from client.executors.interface import Fleet, attempt, killed, nobody
from fedstill.rounds import DeviceAnswer
from fedstill.workers import AHEAD, alone, unordered

CALL_SECONDS = 0.05  # of one call: fifty times what a call costs, and short enough that workers end together
MOST = 16  # devices of one call

Asked = tuple[int, bytes]


class Processes:
    """Computes devices in worker processes.

    Args:
        workers: how many; 1 computes here.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._seconds = CALL_SECONDS  # of one device

    def answer(
        self, fleet: Fleet, requests: Mapping[int, bytes], told: Callable[[], None] = nobody
    ) -> dict[int, DeviceAnswer]:
        """Return the answers by device, ascending."""
        answers: dict[int, DeviceAnswer] = {}
        calls = ((fleet, part) for part in self._parts(list(requests.items())))
        for _, (seconds, found) in unordered(attempts, calls, self._workers, self._killed):
            self._seconds = seconds / len(found)
            for number, answer in found:
                answers[number] = answer
                told()
        return dict(sorted(answers.items()))

    def _parts(self, asked: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
        """Yield the devices of each call, fewer towards the end, so that all workers have some."""
        begin = 0
        while begin < len(asked):
            left = len(asked) - begin
            most = 1 if self._workers == 1 else min(MOST, left // (AHEAD * self._workers))
            end = begin + max(1, min(most, int(CALL_SECONDS / self._seconds)))
            yield asked[begin:end]
            begin = end

    def _killed(self, fleet: Fleet, asked: Sequence[Asked]) -> tuple[float, list[tuple[int, DeviceAnswer]]]:
        """Return the answers of devices whose worker gets killed: one after the other, to find who does it."""
        answers = [(asked[0][0], killed(fleet, *asked[0]))]
        if len(asked) > 1:
            answers = [alone(attempts, (fleet, [one]), self._workers, self._killed)[1][0] for one in asked]
        return self._seconds * len(answers), answers


def attempts(fleet: Fleet, asked: Sequence[Asked]) -> tuple[float, list[tuple[int, DeviceAnswer]]]:
    """Return how long devices took, in seconds, and their answers or refusals; runs in a worker."""
    started = time.monotonic()
    found = [(number, attempt(fleet, number, request)) for number, request in asked]
    return max(time.monotonic() - started, 1e-6), found
