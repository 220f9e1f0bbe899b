"""`python -m client.apps ...`: Flower's SuperExec, whose ClientApps are forks of it.

Flower starts a new Python for every message, which imports again what the SuperExec has imported already. A fork has
it at once, in the same memory (docs/decisions/0018-forked-apps.md). What an app does stays in its own process as
before, and is the same user's.
"""

import gc
import multiprocessing

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supernode.runtime.run_clientapp import run_clientapp

import client.app  # what every message needs
import client.shim  # noqa: F401

_FORK = multiprocessing.get_context("fork")
_launch = SubprocessExecutor.launch


def launch(executor: SubprocessExecutor, spec: ExecutionSpec) -> LaunchResult:
    """Start a ClientApp as a fork of this process, which has no threads, and anything else as Flower does."""
    if spec.task_type is not TaskType.CLIENT_APP:
        return _launch(executor, spec)
    app = _FORK.Process(
        target=run_clientapp,
        kwargs={
            "runtime_api_address": spec.runtime_api_address,
            "token": spec.token,
            "insecure": spec.insecure,
            "parent_pid": spec.parent_pid,
            "runtime_dependency_install": spec.runtime_dependency_install,
        },
        daemon=True,  # ends with this one
    )
    app.start()  # and reaps those that have ended
    return LaunchResult.accepted()


def main() -> None:
    """Run it, with the command line of `flower-superexec`."""
    setattr(SubprocessExecutor, "launch", launch)  # noqa: B010 -- there is no option for it
    gc.freeze()  # a collection would write to what the forks share
    flower_superexec()


if __name__ == "__main__":
    main()
