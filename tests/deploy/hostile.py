"""A device whose owner wants it ill: the real SuperNode and shim, and an agent that answers what it likes.

    python -m tests.deploy.hostile HOME PLAN        keep SuperNode and agent running, as `fedstill client start` does
    python -m tests.deploy.hostile HOME PLAN agent  be that agent

PLAN says, comma-separated, what the device does in each round in turn: `honest`, `garbage` (random bytes), `repeat`
(the last packet it sent, again), `late` (after LATE seconds), `never`.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from client.agent.carrier import Carrier
from client.agent.service import serve
from client.home import Home
from client.programs import programs
from fedstill.processes import Program, Supervisor, sole, stopped_by_signals
from fedstill.rounds import DeviceAnswer

LATE = 105.0
"""Seconds; more than the tests' rounds wait."""


class Hostile(Carrier):
    """A carrier that does its work, and then answers something else."""

    def __init__(self, home: Home, plan: list[str]) -> None:
        super().__init__(home)
        self._plan = plan
        self._last: Mapping[int, DeviceAnswer] = {}
        self._honest: dict[bytes, Mapping[int, DeviceAnswer]] = {}

    def answer(self, run: str, plan: str, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        key = repr(sorted(requests.items())).encode()
        if key not in self._honest:
            self._honest[key] = self._told(super().answer(run, plan, requests))
        return self._honest[key]

    def _told(self, answers: Mapping[int, DeviceAnswer]) -> Mapping[int, DeviceAnswer]:
        doing = self._plan.pop(0) if self._plan else "honest"
        if doing == "garbage":
            answers = {number: replace(answer, packet=random.randbytes(500)) for number, answer in answers.items()}
        elif doing == "repeat":
            answers = self._last
        elif doing == "late":
            time.sleep(LATE)
        elif doing == "never":
            threading.Event().wait()
        self._last = answers
        return answers


def main() -> None:
    home, plan = Home(Path(sys.argv[1])), sys.argv[2]
    stop = stopped_by_signals()
    if sys.argv[3:] == ["agent"]:
        home.state.mkdir(exist_ok=True)
        server = serve(Hostile(home, plan.split(",")), home.socket)
        stop.wait()
        server.stop(grace=None)
        os._exit(0)  # the thread of an answer that never comes would be waited for
    agent = [sys.executable, "-m", "tests.deploy.hostile", str(home.folder), plan, "agent"]
    wanted = [Program("agent", agent) if program.name == "agent" else program for program in programs(home)]
    with sole(home.run / "client.lock", "the hostile device"):
        Supervisor(wanted, Path.cwd(), home.logs, home.run).run(stop)


if __name__ == "__main__":
    main()
