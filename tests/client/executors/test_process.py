import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from client.device import Device
from client.executors import process
from client.executors.process import Processes
from fedstill.rounds import DeviceAnswer
from fedstill.workers import unordered

DEVICES = 80


@dataclass(frozen=True)
class Echoes:
    """Devices that answer at once with their worker's number; one of them kills it."""

    deadly: int | None = None

    def answer(self, number: int, request: bytes) -> DeviceAnswer:
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return DeviceAnswer(request, {"device": number, "worker": os.getpid()})

    def device(self, number: int) -> Device | None:
        return None

    def student(self, number: int) -> str:
        return "none"

    def leaving(self, device: Device, answer: DeviceAnswer) -> DeviceAnswer:
        return answer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Devices of each call that is handed to a worker; all devices are small, however busy the machine."""
    monkeypatch.setattr(process, "CALL_SECONDS", 1e9)
    sizes: list[int] = []

    def noted(asked: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for call in asked:
            sizes.append(len(call[1]))
            yield call

    def noting(work: Callable[..., Any], asked: Iterable[tuple[Any, ...]], *rest: Any) -> Iterator[tuple[int, Any]]:
        return unordered(work, noted(asked), *rest)

    monkeypatch.setattr(process, "unordered", noting)
    return sizes


def test_small_devices_cross_to_a_worker_several_at_a_time_and_each_is_told_of(calls: list[int]) -> None:
    executor, told = Processes(workers=2), list[int]()
    for _ in range(2):  # the first calls find out how small they are
        calls.clear()
        told.clear()
        requests = {number: str(number).encode() for number in reversed(range(DEVICES))}
        answers = executor.answer(Echoes(), requests, partial(told.append, 1))
        assert [(number, answer.packet) for number, answer in answers.items()] == sorted(requests.items())
        assert sum(calls) == sum(told) == DEVICES
    assert calls[0] == DEVICES // 8
    assert calls[-1] == 1, "workers end together"


def test_one_process_is_handed_one_device_after_the_other(calls: list[int]) -> None:
    Processes(workers=1).answer(Echoes(), dict.fromkeys(range(DEVICES), b""))
    assert calls == [1] * DEVICES


def test_of_devices_that_cross_together_only_the_one_that_kills_its_worker_is_refused(calls: list[int]) -> None:
    executor = Processes(workers=2)
    requests = dict.fromkeys(range(DEVICES), b"")
    executor.answer(Echoes(), requests)
    calls.clear()
    answers = executor.answer(Echoes(deadly=3), requests)
    assert calls[0] > 1, "it crosses with others"
    assert list(answers) == list(range(DEVICES))
    assert [number for number, answer in answers.items() if answer.refusal] == [3]
    assert "killed" in answers[3].refusal
