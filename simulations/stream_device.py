"""The product's device on a stream: each round it holds what its stream has brought until then."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from client.device import Begun, Device
from client.learner import DeviceData
from fedstill import packet
from fedstill.learning import accuracy, lent
from fedstill.rounds import PREQUENTIAL, DeviceAnswer
from fedstill.tasks import Task
from simulations.stream import Arrived

Arriving = Callable[[int], tuple[DeviceData, Arrived]]


def prequential(model: nn.Module, arrived: Arrived, task: Task) -> dict[str, float]:
    """Return the accuracy on what is new in a round as a metric; nothing has been learned from it yet."""
    if not arrived.fresh:
        return {}
    return {PREQUENTIAL: accuracy(model, arrived.images[-arrived.fresh :], arrived.labels[-arrived.fresh :], task)}


class StreamDevice(Device):
    """A device whose data follow from the round.

    Args:
        arriving: returns what it learns from in a round, and how it came to it.
        what: arguments of `Device` but its data.
    """

    def __init__(self, arriving: Arriving, **what: Any) -> None:
        self._arriving = arriving
        self._before: dict[str, float] = {}
        super().__init__(data=arriving(1)[0], **what)

    def begin(self, request: bytes) -> Begun | DeviceAnswer:
        """Take what the round brings, and predict what is new of it before anything is learned."""
        self.data, found = self._arriving(max(1, packet.round_of(request)))
        counts = np.bincount(self.data.labels, minlength=self.task.classes).astype(np.float32)
        self.class_prior, self.held = counts / counts.sum(), counts > 0
        begun = super().begin(request)
        if isinstance(begun, Begun):
            with lent(self.architecture, self.task, begun.student) as model:
                self._before = prequential(model, found, self.task)
        return begun

    def _score(self, tested: torch.Tensor) -> dict[str, float]:
        return {**super()._score(tested), **self._before}
