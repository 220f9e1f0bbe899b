"""What a run had reached after each round: the best and the last one, and what it cost to reach a target.

Measured on the test set like every accuracy of a run's log, and told alone: no run stops or chooses anything by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reached:
    """Accuracies by round.

    Attributes:
        accuracies: of the classes' students, mean over devices, after each round; of the devices' own where a method
            has no such students.
        spent: bytes of all packets, both ways, until the end of each round.
        rounds: their numbers; a method without rounds has one row, that of the last.
    """

    accuracies: tuple[float, ...]
    spent: tuple[int, ...]
    rounds: tuple[int, ...]

    @property
    def last(self) -> float | None:
        """Accuracy after the last round."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def best(self) -> float | None:
        """Accuracy after the best round, which nobody knows without the test set."""
        return max(self.accuracies, default=None)

    def cost_of(self, target: float) -> tuple[int, int] | None:
        """Return the rounds and the bytes until an accuracy was reached for the first time; None: it was not."""
        for number, accuracy, spent in zip(self.rounds, self.accuracies, self.spent, strict=True):
            if accuracy >= target:
                return number, spent
        return None


def reached(rows: Rows, devices: Mapping[str, int]) -> Reached:
    """Return what a run had reached after each round.

    Args:
        rows: lines of `rounds.jsonl`.
        devices: their number by device class.
    """
    accuracies: list[float] = []
    spent: list[int] = []
    rounds: list[int] = []
    for row in rows:
        if (accuracy := _mean(row, devices)) is not None:
            accuracies.append(accuracy)
            spent.append(row["uplink_bytes"] + row["downlink_bytes"])
            rounds.append(row["round"])
    return Reached(tuple(accuracies), tuple(spent), tuple(rounds))


def _mean(row: Mapping[str, Any], devices: Mapping[str, int]) -> float | None:
    released = over_devices(row["released_accuracy"], devices)
    return over_devices(row["device_accuracy"], devices) if released is None else released


def over_devices(values: Mapping[str, float | None], devices: Mapping[str, int]) -> float | None:
    """Return the mean over the devices of the classes that have a value; None: no class has one.

    Args:
        values: by device class.
        devices: their number by device class.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None
    return sum(value * devices[name] for name, value in known.items()) / sum(devices[name] for name in known)
