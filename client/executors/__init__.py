"""How a host computes its devices: executors behind one interface, which change how fast, not what.

`sequential` is the reference; `process` gives its results bit for bit; `cohort` computes students together, with other
roundings: a round from the same state gives soft labels that differ by less than a thousandth.
"""

from client.executors.cohort import Cohorts, CohortSettings
from client.executors.interface import Executor, Fleet
from client.executors.process import Processes
from client.executors.sequential import Sequential

__all__ = ["CohortSettings", "Cohorts", "Executor", "Fleet", "Processes", "Sequential", "executor_of"]


def executor_of(name: str, workers: int, cohort: CohortSettings) -> Executor:
    """Return an executor.

    Args:
        name: `sequential`, `process` or `cohort`.
        workers: processes that may compute at once, for those that use any.
        cohort: settings of `cohort`.
    """
    match name:
        case "sequential":
            return Sequential()
        case "process":
            return Processes(workers)
        case _:
            return Cohorts(workers, cohort)
