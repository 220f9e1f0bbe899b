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
    """

    accuracies: tuple[float, ...]
    spent: tuple[int, ...]

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
        for place, accuracy in enumerate(self.accuracies):
            if accuracy >= target:
                return place + 1, self.spent[place]
        return None


def reached(rows: Rows, devices: Mapping[str, int]) -> Reached:
    """Return what a run had reached after each round.

    Args:
        rows: lines of `rounds.jsonl`.
        devices: their number by device class.
    """
    found = [(_mean(row, devices), row["uplink_bytes"] + row["downlink_bytes"]) for row in rows]
    known = [(accuracy, spent) for accuracy, spent in found if accuracy is not None]
    return Reached(tuple(accuracy for accuracy, _ in known), tuple(spent for _, spent in known))


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
