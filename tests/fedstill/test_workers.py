import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from fedstill.workers import ordered, unordered


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 2:
        raise ValueError("device 2")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_calls(workers: int) -> None:
    results = ordered(square, [(number,) for number in range(8)], workers)
    assert [value for value, _ in results] == [number * number for number in range(8)]
    assert any(pid != os.getpid() for _, pid in results) == (workers > 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_result_names_the_place_of_its_call(workers: int) -> None:
    assert {place: value for place, (value, _) in unordered(square, [(5,), (6,)], workers)} == {0: 25, 1: 36}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_worker_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="device 2"):
        ordered(fail, [(number,) for number in range(4)], workers)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_fails_its_call_and_the_next_one_gets_new_workers() -> None:
    with pytest.raises(BrokenProcessPool):
        ordered(die, [()] * 2, 2)
    assert [value for value, _ in ordered(square, [(2,), (3,)], 2)] == [4, 9]


def die_at(number: int) -> int:
    if number == 5:
        die()
    return number


def test_calls_beside_one_that_kills_its_worker_get_their_results() -> None:
    found = dict(unordered(die_at, [(number,) for number in range(20)], 2, lost=lambda number: -number))
    assert found == {**{number: number for number in range(20)}, 5: -5}


def test_workers_do_not_outlive_a_killed_parent() -> None:
    code = (
        "import time\n"
        "from fedstill.workers import ordered\n"
        "import os\n"
        "if __name__ == '__main__':\n"
        "    print(os.getpid(), *set(ordered(os.getpid, [()] * 4, 2)), flush=True)\n"
        "    ordered(time.sleep, [(600,), (600,)], 2)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        _, *workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 20
        while any(psutil.pid_exists(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in workers if psutil.pid_exists(pid)]


def test_what_workers_are_forked_from_starts_before_the_first_call_if_there_are_workers() -> None:
    code = (
        "from multiprocessing import forkserver\n"
        "from fedstill.workers import begin\n"
        "for workers in (1, 2):\n"
        "    begin(workers)\n"
        "    print(forkserver._forkserver._forkserver_pid is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
