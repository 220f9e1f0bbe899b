"""The executors by their names."""

from client.executors.cohort import Cohorts
from client.executors.interface import Executor
from client.executors.process import Processes
from client.executors.sequential import Sequential
from client.executors.settings import CohortSettings


def executor_of(name: str, workers: int, cohort: CohortSettings) -> Executor:
    """Return an executor.

    Args:
        name: `sequential`, `process` or `cohort`.
        workers: processes that may compute at once, for those that use any.
        cohort: settings of `cohort`.

    Raises:
        ConfigError: this machine lacks the device that `cohort` computes on.
    """
    match name:
        case "sequential":
            return Sequential()
        case "process":
            return Processes(workers)
        case _:
            return Cohorts(workers, cohort)
