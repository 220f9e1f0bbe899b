"""`python -m client.apps UID ...`: Flower's SuperExec, whose ClientApps are forks of it.

Flower starts a new Python for every message, which imports again what the SuperExec has imported already. A fork has
it at once, in the same memory (docs/decisions/0018-forked-apps.md). What an app does stays in its own process.

The SuperExec proves to the SuperNode who it is, but nothing proves the contrary to it, and whoever took the SuperNode's
loopback port while that is away could have any code run here. So an app starts only while the user with that UID, and
nobody else, listens there.
"""

import gc
import multiprocessing
import signal
import sys
import time
from pathlib import Path

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.exit import exit_handler
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supernode.runtime.run_clientapp import run_clientapp

import client.app  # what every message needs
import client.shim  # noqa: F401
from fedstill.flower.installed import forget_installed

LISTENS = "0A"
LAST = 10.0
"""Seconds that an app has to end once its message is answered, before the next message's app starts all the same."""
_FORK = multiprocessing.get_context("fork")


def listeners(port: int) -> set[int]:
    """Return the ids of the users who listen at a TCP port of this machine, at whatever address."""
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            _, local, _, state, _, _, _, user, *_ = line.split()
            if state == LISTENS and int(local.rpartition(":")[2], 16) == port:
                found.add(int(user))
    return found


class Forking:
    """How a SuperExec starts what it is asked to.

    Args:
        owner: id of the user who runs the SuperNode.
    """

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self._running: list[multiprocessing.context.ForkProcess] = []
        self._failed = False

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start a ClientApp as a fork of this process, after the one before; a SuperNode asks for nothing else."""
        if spec.task_type is not TaskType.CLIENT_APP or not spec.insecure:
            return LaunchResult.failed("a device runs ClientApps of its own SuperNode, and nothing else")
        port = int(spec.runtime_api_address.rpartition(":")[2])
        if (found := listeners(port)) != {self._owner}:
            return LaunchResult.failed(f"at port {port} listens user {found or 'nobody'}, not {self._owner} alone")
        deadline = time.monotonic() + LAST
        for app in self._running:  # a small board has no room for two
            app.join(max(0.0, deadline - time.monotonic()))
        self.reconcile()
        app = _FORK.Process(target=run, args=(spec,), daemon=True)  # it ends with this one
        app.start()
        self._running.append(app)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Reap apps that have ended; the SuperExec calls this once a second, while its SuperNode is there."""
        ended = [app for app in self._running if not app.is_alive()]
        self._running = [app for app in self._running if app not in ended]
        self._failed |= any(app.exitcode for app in ended)
        if self._failed and not self._running:
            forget_installed()
            self._failed = False


def run(spec: ExecutionSpec) -> None:
    """Be the ClientApp; what the SuperExec does at its own end is none of its business."""
    exit_handler.registered_exit_handlers.clear()
    for number in exit_handler.SIGNAL_TO_EXIT_CODE:
        signal.signal(number, signal.SIG_DFL)
    run_clientapp(
        runtime_api_address=spec.runtime_api_address,
        token=spec.token,
        insecure=spec.insecure,
        parent_pid=spec.parent_pid,
        runtime_dependency_install=spec.runtime_dependency_install,
    )


def main() -> None:
    """Run it, with the command line of `flower-superexec` after the user's id."""
    forking = Forking(int(sys.argv.pop(1)))
    # There is no option for either.
    setattr(SubprocessExecutor, "launch", lambda _, spec: forking.launch(spec))  # noqa: B010
    setattr(SubprocessExecutor, "reconcile", lambda _: forking.reconcile())  # noqa: B010
    forget_installed()
    gc.freeze()  # a collection would write to what the forks share
    flower_superexec()


if __name__ == "__main__":
    main()
