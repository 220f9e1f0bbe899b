"""A device that is killed, `python -m tests.client.updates.killing HOME ADDRESS SIZE`: without torch, so cheaply.

Copies the device in HOME once for each step of an update, kills the updater there (SIGKILL to itself, in a process of
its own) and then lets another one go on. Prints one line of JSON per step: its name, what ran after the kill, and what
ran after the next update. The last line is about a disk that takes no file larger than SIZE bytes.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from client.updates.delivery import Access, Server
from client.updates.home import ROOT, Home
from client.updates.trial import Chosen, Measured
from client.updates.updater import Kind, Updater
from client.updates.watch import Rules
from fedstill.errors import UpdateError
from fedstill.release.manifest import Manifest
from fedstill.release.trust import Trust
from fedstill.release.verify import verify_folder

TOO_LARGE = 7  # exit code


def _trial(folder: Path, manifest: Manifest) -> Chosen:
    return Chosen(manifest.artifact, Measured((1.0,), 1), "")


def _rehearsal(home: Home, rules: Rules) -> str:
    return ""


def _update(home: Home, address: str, step: Callable[[str], None]) -> Kind:
    with Access(address, insecure=True).channel() as channel:
        updater = Updater(home, Server(channel, address), "pi5", trial=_trial, rehearsal=_rehearsal, step=step)
        return updater.check().kind


def _apart(work: Callable[[], int]) -> int:
    """Return how a process of its own ended; gRPC must not have been used before in this one."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _runs(home: Home) -> dict[str, object]:
    """What runs, once it is found whole and signed, together with what it would go back to."""
    state = home.state()
    trust = Trust.load((home.folder / ROOT).read_bytes())
    for version in state.named():
        verify_folder(home.slot(version), trust, None)
    return {"version": state.running and state.running.version, "good": len(state.good), "watched": state.watched}


def main() -> None:
    """Kill at every step."""
    first, address, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    place = 0
    while True:
        home = Home(first.with_name(f"killed-{place}"))
        shutil.copytree(first, home.folder)
        steps: list[str] = []

        def step(name: str, home: Home = home, last: int = place, steps: list[str] = steps) -> None:
            steps.append(name)
            (home.folder / "step").write_text(name)
            if len(steps) > last:
                os.kill(os.getpid(), signal.SIGKILL)

        code = _apart(lambda home=home, step=step: _update(home, address, step) is not Kind.KEPT)  # type: ignore[misc]
        killed = _runs(home)
        after = _apart(lambda home=home: _update(home, address, lambda name: None) is Kind.REFUSED)  # type: ignore[misc]
        line = {"step": (home.folder / "step").read_text(), "code": code, "killed": killed, "next": after}
        print(json.dumps({**line, "after": _runs(home)}), flush=True)
        shutil.rmtree(home.folder)
        if code != -signal.SIGKILL:
            break
        place += 1
    home = Home(first.with_name("full"))
    shutil.copytree(first, home.folder)

    def update_a_full_disk() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            _update(home, address, lambda name: None)
        except UpdateError as error:
            return TOO_LARGE if "File too large" in str(error) else 1
        return 0

    code = _apart(update_a_full_disk)
    killed = _runs(home)
    after = _apart(lambda: _update(home, address, lambda name: None) is not Kind.KEPT)
    print(json.dumps({"step": "full", "code": code, "killed": killed, "next": after, "after": _runs(home)}))


if __name__ == "__main__":
    main()
