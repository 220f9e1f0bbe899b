"""The server's student of each device class, distilled from soft labels about the proxy set: what gets released."""

from functools import partial

import torch

from fedstill.adaptive import CurriculumTemperature, blended, standardized, weighted
from fedstill.fit import Fit
from fedstill.learning import Loss, State, build, fit, restored, state_of
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.settings import AdaptationSettings, StudentSettings
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, load_task


def initial(task_name: str, student: str, seed: int) -> State:
    """Return the state of a fresh student, the same for a class student and its teacher-only twin."""
    return state_of(build(architecture(student), load_task(task_name), torch_seed(seed, "student", student)))


def distil(
    task_name: str,
    student: str,
    settings: StudentSettings,
    state: State,
    images: Images,
    labels: Floats,
    round_number: int,
    rounds: int,
    seed: int,
) -> State:
    """Distil one round's worth of steps and return the new state.

    Args:
        task_name: reference of the task.
        student: its architecture.
        settings: how to fit.
        state: the student before.
        images: proxy samples that have a label; none: the student stays as it is.
        labels: their soft labels `[samples, classes]`.
        round_number: from 1; with `rounds` it gives the temperature and the learning rate.
        rounds: rounds of the whole run.
        seed: run seed.
    """
    if len(labels) == 0:
        return state
    task = load_task(task_name)
    model = restored(architecture(student), task, state)
    wanted = settings.temperature
    temperature = SCHEDULES[wanted.schedule](progress_of(round_number, rounds), wanted.start, wanted.end)
    stream = torch_seed(seed, "distil", student, round_number)
    how = settings.last if round_number == rounds and settings.last is not None else settings.distil
    steps = how.of(len(labels))
    fit(model, images, torch.from_numpy(labels), task, steps, loss_of(settings.adaptation, temperature, steps), stream)
    return state_of(model)


def loss_of(wanted: AdaptationSettings, temperature: float, how: Fit) -> Loss:
    """Return the loss of a distillation from probabilities; one that adapts may be used for one fit only.

    Args:
        wanted: what follows the student's state.
        temperature: T of the round.
        how: the fit.
    """
    match wanted.method:
        case "standardized":
            return blended(partial(standardized, temperature=temperature), wanted.share)
        case "weighted":
            return blended(partial(weighted, temperature=temperature), wanted.share)
        case "curriculum":
            return blended(CurriculumTemperature(temperature, how.steps, how.learning_rate), wanted.share)
        case "none":
            return partial(kd_from_probabilities, temperature=temperature)
