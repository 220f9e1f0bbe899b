"""What a search tries: students around the hand-made one, and how they learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from fedstill.device_classes import NumericFormat
from fedstill.models.shapes import Shape
from server.compress.learn import Candidate
from server.release.formats import FORMATS

WIDTH = (0.5, 2.0)  # times the hand-made student's channels
DEPTH = (-1, 1)  # blocks more
SPARSITY, SPARSITY_STEP = 0.75, 0.125  # share of the operations that pruning takes away
TEMPERATURE = (1.0, 8.0)
ALPHA, ALPHA_STEP = 0.5, 0.1  # the least weight of the soft labels


@dataclass(frozen=True)
class Space:
    """A class's search space.

    Attributes:
        hand_made: its student's shape.
        formats: numeric formats that suit it, its own first.
        temperature: T of the run's own students.
        labelled: whether the server has true labels.
    """

    hand_made: Shape
    formats: Sequence[NumericFormat]
    temperature: float
    labelled: bool

    @property
    def first(self) -> dict[str, Any]:
        """The first trial: the hand-made student, as the run distils it."""
        first = {"width": 1.0, "depth": 0, "sparsity": 0.0, "format": self.formats[0], "temperature": self.temperature}
        return {**first, "alpha": 1.0} if self.labelled else first

    @property
    def floor(self) -> Shape:
        """A student smaller than any that is tried: what does not hold for it holds for none.

        Pruning goes on from what it left, so that a channel a layer is all that is sure to stay.
        """
        stages = tuple((1,) * len(stage) for stage in self.hand_made.stages)
        return Shape(self.hand_made.family, stages).deepened(DEPTH[0])

    def suggest(self, trial: optuna.Trial) -> Candidate:
        """Return the candidate of a trial."""
        low, high = min(TEMPERATURE[0], self.temperature), max(TEMPERATURE[1], self.temperature)
        return Candidate(
            shape=self.hand_made.scaled(trial.suggest_float("width", *WIDTH, log=True)).deepened(
                trial.suggest_int("depth", *DEPTH)
            ),
            sparsity=trial.suggest_float("sparsity", 0, SPARSITY, step=SPARSITY_STEP),
            numeric=FORMATS[trial.suggest_categorical("format", list(self.formats))].name,
            temperature=trial.suggest_float("temperature", low, high, log=True),
            alpha=trial.suggest_float("alpha", ALPHA, 1.0, step=ALPHA_STEP) if self.labelled else 1.0,
        )
