"""How to fit a model, without torch: what settings resolve to."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fit:
    """How to fit a model for a number of steps.

    Attributes:
        steps: optimizer steps.
        batch: samples per step.
        learning_rate: peak learning rate.
        optimizer: `adam` (AdamW) or `sgd` (Nesterov).
        momentum: of `sgd`, in [0, 1).
        weight_decay: decoupled for adam.
        decay: `cosine` to zero over the steps, or `constant`.
        augment: `full` shifts and mirrors images as the task allows, `flip` only mirrors them.
    """

    steps: int
    batch: int
    learning_rate: float
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: Literal["cosine", "constant"] = "constant"
    augment: Literal["none", "flip", "full"] = "full"
