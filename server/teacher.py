"""The teacher: trained on the server's labelled samples, then updated from the consensus under a guard.

An update is a trial. It is kept when it does not cost accuracy on labelled samples that no training sees, and rolled
back when it does, so that a bad consensus can't overwrite a good teacher (FedGEMS, Cheng et al. 2021, arXiv 2110.11027,
selects per sample; here the consensus already holds the teacher's vote, and the guard judges the whole update). One
that went astray is rolled back as well: answers that are no numbers count as the first class, which may cost nothing.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from fedstill.errors import ConfigError
from fedstill.learning import Anchor, State, accuracy, build, fit, logits, restored, state_of
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.settings import TeacherSettings
from fedstill.soft_labels import Floats, Ints
from fedstill.tasks import Images, load_task
from server.astray import finite

JUDGES = 256  # labelled samples that a fresh teacher must have an answer about


@dataclass(frozen=True)
class Updated:
    """The outcome of a teacher's update.

    Attributes:
        state: the teacher from now on: the trial, or the old one.
        kept: whether the trial was kept.
        guard_before: accuracy on the guard set before.
        guard_after: accuracy of the trial.
    """

    state: State
    kept: bool
    guard_before: float
    guard_after: float


def train_initial(task_name: str, settings: TeacherSettings, images: Images, labels: Ints, seed: int) -> State:
    """Train a fresh teacher on the server's labelled samples and return its state.

    Raises:
        ConfigError: its training diverged.
    """
    task = load_task(task_name)
    model = build(architecture(settings.architecture), task, torch_seed(seed, "teacher"))
    targets = torch.from_numpy(labels)
    fit(model, images, targets, task, settings.initial.of(len(labels)), F.cross_entropy, torch_seed(seed, "initial"))
    state = state_of(model)
    if not (finite(state) and bool(logits(model, images[:JUDGES], task).isfinite().all())):
        raise ConfigError(
            f"the teacher {settings.architecture} diverged in its first training: parameters or answers that are no "
            "numbers; lower teacher.initial.learning_rate"
        )
    return state


def update(
    task_name: str,
    settings: TeacherSettings,
    state: State,
    proxy: tuple[Images, Floats],
    labelled: tuple[Images, Ints],
    guard: tuple[Images, Ints],
    seed: int,
) -> Updated:
    """Distil the consensus into the teacher, keep its labelled samples in sight, and judge the result.

    Args:
        task_name: reference of the task.
        settings: how to fit.
        state: the teacher before.
        proxy: proxy images with their consensus `[samples, ...]`, `[samples, classes]`.
        labelled: the server's labelled samples.
        guard: the held-out ones.
        seed: of this update's random stream.
    """
    task = load_task(task_name)
    model = restored(architecture(settings.architecture), task, state)
    before = accuracy(model, *guard, task)
    weight = settings.labelled_weight
    distil = partial(kd_from_probabilities, temperature=settings.temperature)
    fit(
        model,
        proxy[0],
        torch.from_numpy(proxy[1]),
        task,
        settings.update.of(len(proxy[1])),
        lambda found, targets: (1 - weight) * distil(found, targets),
        seed,
        Anchor(labelled[0], torch.from_numpy(labelled[1]), F.cross_entropy, weight),
    )
    images, labels = guard
    answers, trial = logits(model, images, task), state_of(model)
    after = float((answers.argmax(dim=1).numpy() == labels).mean())
    sound = finite(trial) and bool(answers.isfinite().all())
    kept = sound and after >= before - settings.guard_tolerance
    return Updated(trial if kept else state, kept, before, after)
