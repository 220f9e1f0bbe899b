"""Structured pruning: whole channels are taken from a network, so that what is left is a smaller network of its family.

Channels that depend on each other, a convolution's outputs, its BatchNorm and the inputs of what follows, go together
(DepGraph, Fang et al. 2023, arXiv 2301.12900, as `torch-pruning` finds them). Those that matter least go first:

* `l1`: sum of |w| of a channel's weights (Li et al. 2017, arXiv 1608.08710)
* `taylor`: sum of |g w|, to first order what the distillation loss on a batch changes by without a weight (Molchanov et
  al. 2019, arXiv 1906.10771)

Importances are compared across layers, after division by each layer's mean.
"""

import copy
from collections.abc import Callable
from typing import Literal

import torch
import torch_pruning
from torch import Tensor, nn

from fedstill.errors import ExportError
from fedstill.learning import State, restored, state_of
from fedstill.models.shapes import Shape
from fedstill.tasks import Task

Importance = Literal["l1", "taylor"]
MAX_RATIO = 0.9  # of a layer's channels: none is cut through
STEPS = 30  # so 3 % of the channels go at a time


def flops(model: nn.Module, task: Task) -> float:
    """Return the multiply-accumulate operations that one sample takes."""
    model.eval()
    operations, _ = torch_pruning.utils.count_ops_and_params(model, _example(task))
    return float(operations)


def prune(
    shape: Shape,
    state: State,
    task: Task,
    limit: float,
    loss: Callable[[nn.Module], Tensor],
    importance: Importance = "taylor",
) -> tuple[Shape, State]:
    """Take channels away until one sample takes at most `limit` operations.

    Args:
        shape: the student's.
        state: its parameters and buffers; they stay as they are.
        task: what is learned.
        limit: multiply-accumulate operations, as `flops` counts them.
        loss: of a model in evaluation mode, whose gradients `taylor` takes.
        importance: what says which channels matter.

    Raises:
        ExportError: the limit lies below what is left of the narrowest network.
    """
    model = restored(shape.build, task, copy.deepcopy(state))
    model.eval()
    if importance == "taylor":
        loss(model).backward()  # type: ignore[no-untyped-call]
    measures = {
        "l1": torch_pruning.importance.MagnitudeImportance(p=1),
        "taylor": torch_pruning.importance.TaylorImportance(),
    }
    pruner = torch_pruning.pruner.BasePruner(
        model,
        _example(task),
        importance=measures[importance],
        global_pruning=True,
        pruning_ratio=MAX_RATIO,
        max_pruning_ratio=MAX_RATIO,
        iterative_steps=STEPS,
        ignored_layers=[model.head],
    )
    left = flops(model, task)
    for _ in range(STEPS):
        if left <= limit:
            break
        pruner.step()
        left = flops(model, task)
    if left > limit:
        raise ExportError(f"{shape} can't be pruned to {limit:,.0f} operations: {left:,.0f} are left")
    return shape.with_widths_of(model), state_of(model)


def _example(task: Task) -> Tensor:
    return torch.zeros(1, *task.input_shape)
