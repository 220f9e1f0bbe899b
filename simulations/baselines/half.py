"""A method's server half, as the shared loop drives it, and what comes out of a method's run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np
from typing_extensions import TypeVar

from fedstill.learning import State
from fedstill.rounds import Traffic
from fedstill.soft_labels import Ints

A = TypeVar("A")
Row = dict[str, Any]


class ServerHalf(ABC, Generic[A]):
    """What a method's server holds, says and learns; `A` is a device's decoded answer.

    Attributes:
        models: the server's models by architecture, one for all device classes that use it; empty: it has none.
    """

    models: dict[str, State]

    def ids(self, round_number: int) -> Ints:
        """Return no sample: these rounds are not about proxy samples."""
        return np.zeros(0, dtype=np.int64)

    @abstractmethod
    def request(self, device: int, round_number: int) -> bytes:
        """Return the serialized request of a round for one device."""

    @abstractmethod
    def accept(self, device: int, round_number: int, content: bytes) -> A:
        """Decode a device's answer.

        Raises:
            PacketError: the answer breaks a rule.
        """

    def refused(self, device: int, held_version: int) -> None:
        """Do nothing: a request holds all that a device needs, whatever it has."""

    @abstractmethod
    def conclude(self, round_number: int, answers: Mapping[int, A]) -> None:
        """Learn from a round's answers, by device in ascending order."""

    def stored(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep beside the models."""
        return {}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take back what `stored` returned."""
        return


@dataclass
class Outcome:
    """What a run of a method leaves.

    Attributes:
        models: the server's models by architecture; empty: the method has none and releases nothing.
        rows: a row of metrics per finished round.
        seconds: time spent in rounds.
        traffic: bytes of all packets.
        references: accuracies under the keys of `simulations.references`, where the method computes some.
    """

    models: dict[str, State]
    rows: list[Row]
    seconds: float
    traffic: Traffic
    references: dict[str, float] = field(default_factory=dict)
