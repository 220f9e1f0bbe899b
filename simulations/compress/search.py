"""The search: trials one after the other, each on disk when it is finished, so that a search that ends goes on.

Multi-objective TPE with constraints (Ozaki et al. 2022, "Multiobjective tree-structured Parzen estimator", JAIR 73;
Watanabe and Hutter 2023, arXiv 2211.14411) over cross-entropy, size, memory and latency. The sampler of each trial is
seeded by how many were finished before it: what a resumed search tries depends on the finished trials alone.
"""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fedstill.device_classes import Budget
from fedstill.errors import ConfigError, DataError, ExportError
from fedstill.files import write_atomic
from fedstill.learning import State
from fedstill.models.shapes import Shape
from fedstill.rng import torch_seed
from fedstill.stored import load_tensors
from server.compress.figures import Figures
from server.compress.learn import Candidate
from simulations.compress.space import Space

DATABASE, STATES = "search.db", "states"
FAILURE, HAND_MADE = "failure", "hand_made"  # what a trial notes
MINIMIZE = StudyDirection.MINIMIZE
# Of few samples the share of right answers tells students apart only roughly, what they say of each tells more.
DIRECTIONS = {"cross_entropy": MINIMIZE, "bytes": MINIMIZE, "memory_bytes": MINIMIZE, "latency_ms": MINIMIZE}
FIGURES = {field.name for field in fields(Figures)}
RANDOM = 10  # trials before the sampler learns from them

Evaluate = Callable[[Candidate], tuple[Shape, State, Figures]]


@dataclass(frozen=True)
class Tried:
    """A finished trial.

    Attributes:
        number: of the trial.
        student: name of the architecture that came out.
        parameters: what was tried, by name.
        figures: what it measured.
        hand_made: whether it is the hand-made student as the run distils it.
    """

    number: int
    student: str
    parameters: dict[str, Any]
    figures: Figures
    hand_made: bool = False

    def state(self, out: Path) -> State:
        """Return its trained state from the search's folder.

        Raises:
            DataError: it is not there, or damaged.
        """
        try:
            state: State = load_tensors(out / STATES / f"{self.number:04d}.pt")
        except DataError as error:
            raise DataError(f"{error}; begin another search in another folder") from error
        return state


class Search:
    """A search in a folder.

    Args:
        out: the folder; it exists.
        space: what is tried.
        budget: what it must hold.
        seed: of the run.

    Raises:
        ConfigError: the folder's search can't be read.
    """

    def __init__(self, out: Path, space: Space, budget: Budget, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._out, self._space, self._budget, self._seed = out, space, budget, seed
        try:
            self._storage = RDBStorage(f"sqlite:///{out / DATABASE}")
            self._study = optuna.create_study(
                storage=self._storage, study_name="compress", directions=[*DIRECTIONS.values()], load_if_exists=True
            )
        except Exception as error:  # SQLAlchemy and alembic raise what a damaged file leads to
            told = f"{out / DATABASE}: no search can be read here: {error}".splitlines()[0]
            raise ConfigError(f"{told}; begin another in another folder") from error
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if self._study.directions != [*DIRECTIONS.values()] or any(set(_told(one)) != FIGURES for one in complete):
            raise ConfigError(
                f"{out}: another version of Fedstill searched here, by other figures; begin another in another folder"
            )
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            # Its process was killed. The next trial tries the same: it is drawn from the same seed and the same past.
            self._study.tell(trial.number, state=TrialState.FAIL)
        if not self.finished and not self._study.get_trials(states=(TrialState.WAITING,)):
            self._study.enqueue_trial(space.first, user_attrs={HAND_MADE: True})

    def close(self) -> None:
        """Release the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def finished(self) -> int:
        """Trials that came to an end of their own, a measurement or a failure."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) + len(self.failures)

    @property
    def tried(self) -> list[Tried]:
        """Trials that were measured."""
        return [_tried(trial) for trial in self._study.get_trials(states=(TrialState.COMPLETE,))]

    @property
    def failures(self) -> list[str]:
        """Why trials failed."""
        failed = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return [trial.user_attrs[FAILURE] for trial in failed if FAILURE in trial.user_attrs]

    def step(self, evaluate: Evaluate) -> Tried | None:
        """Run one trial; None: its candidate can't be built, and the search remembers why."""
        self._study.sampler = TPESampler(
            seed=torch_seed(self._seed, "search", self.finished) % 2**32, n_startup_trials=RANDOM
        )
        trial = self._study.ask()
        candidate = self._space.suggest(trial)
        try:
            shape, state, figures = evaluate(candidate)
        except ExportError as error:
            trial.set_user_attr(FAILURE, f"{candidate.shape} in {candidate.numeric}: {error}")
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        content = io.BytesIO()
        torch.save(state, content)
        write_atomic(self._out / STATES / f"{trial.number:04d}.pt", content.getvalue())
        trial.set_user_attr("student", str(shape))
        trial.set_user_attr("figures", asdict(figures))
        for name, excess in figures.violations(self._budget).items():
            trial.set_constraint(name, excess)
        return _tried(self._study.tell(trial, [getattr(figures, name) for name in DIRECTIONS]))


def _tried(trial: FrozenTrial) -> Tried:
    attributes = trial.user_attrs
    return Tried(trial.number, attributes["student"], trial.params, Figures(**_told(trial)), HAND_MADE in attributes)


def _told(trial: FrozenTrial) -> dict[str, Any]:
    figures: dict[str, Any] = trial.user_attrs["figures"]
    return figures
