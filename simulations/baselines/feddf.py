"""FedDF: average by architecture, then distil the ensemble of all received models into each average.

Lin, Kong, Stich and Jaggi 2020, "Ensemble Distillation for Robust Model Fusion in Federated Learning", arXiv
2006.07242, algorithms 1 and 3. S_t: devices that answered; d: unlabelled samples, here the proxy set; the server's
steps and eta are `students.distil`. The device's half is FedAvg's.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from flwr.serverapp import Grid

from fedstill.fit import Fit
from fedstill.learning import State, fit, logits, restored, state_of
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.soft_labels import Floats
from fedstill.tasks import load_task
from fedstill.workers import ordered
from simulations.baselines.fedavg import FedAvg
from simulations.baselines.half import Outcome
from simulations.baselines.loop import rounds
from simulations.baselines.weights import Weights
from simulations.progress import RunProgress
from simulations.setup import Setup
from simulations.shelf import Shelf


def proxy_logits(task_name: str, student: str, state: State, shelf: Shelf) -> Floats:
    """Return f(x_k, d): a model's logits about the proxy set `[proxy, classes]`; runs in a worker."""
    task = load_task(task_name)
    model = restored(architecture(student), task, state)
    found: Floats = logits(model, shelf.proxy, task).numpy()
    return found


def ensemble(members: list[Floats]) -> Floats:
    """Return softmax(1/|S_t| sum_k f(x_k, d)): the ensemble's probabilities `[proxy, classes]`.

    Args:
        members: logits of each received model `[proxy, classes]`, at least one.
    """
    probabilities: Floats = F.softmax(torch.from_numpy(np.mean(members, axis=0)), dim=1).numpy()
    return probabilities


def fuse(task_name: str, student: str, state: State, shelf: Shelf, teacher: Floats, how: Fit, seed: int) -> State:
    """Distil the ensemble into an average by KL(teacher || student) on the proxy set; runs in a worker.

    Args:
        task_name: reference of the task.
        student: architecture of the average.
        state: the average.
        shelf: for the proxy set.
        teacher: the ensemble's probabilities `[proxy, classes]`.
        how: the server's steps.
        seed: of the random stream.
    """
    task = load_task(task_name)
    model = restored(architecture(student), task, state)
    fit(model, shelf.proxy, torch.from_numpy(teacher), task, how, _divergence, seed)
    return state_of(model)


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return kd_from_probabilities(student, teacher, temperature=1.0)


class FedDF(FedAvg):
    """FedAvg whose averages learn from the ensemble before they go out.

    Args:
        setup: the run.
        shelf: its data, of which only the proxy set is used.
    """

    def __init__(self, setup: Setup, shelf: Shelf) -> None:
        super().__init__(setup.scenario)
        self._shelf = shelf
        self._workers = setup.workers

    def conclude(self, round_number: int, answers: Mapping[int, Weights]) -> None:
        """Average by architecture, then fuse."""
        super().conclude(round_number, answers)
        scenario = self._scenario
        received = [
            (scenario.task, self._student_of[device], weights.state, self._shelf) for device, weights in answers.items()
        ]
        teacher = ensemble(ordered(proxy_logits, received, self._workers))
        how = scenario.students.distil.of(len(teacher))
        seeds = {name: torch_seed(scenario.seed, "fuse", name, round_number) for name in self.models}
        calls = [
            (scenario.task, name, state, self._shelf, teacher, how, seeds[name]) for name, state in self.models.items()
        ]
        fused = ordered(fuse, calls, self._workers)
        self.models = dict(zip(self.models, fused, strict=True))


def run(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run FedDF: the server's half."""
    return rounds(grid, FedDF(setup, shelf), setup, shelf, progress)
