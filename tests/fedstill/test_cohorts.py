import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedstill.cohorts import Cohort
from fedstill.fit import Fit
from fedstill.learning import Anchor, Lesson, build, logits, state_of, teach
from fedstill.losses import kd_from_probabilities
from fedstill.models import Architecture, architecture
from fedstill.tasks import Task
from simulations.sources import DIGITS

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
LABELS = torch.from_numpy(np.random.default_rng(1).integers(0, 10, 60))
SOFT = torch.from_numpy(np.random.default_rng(2).dirichlet(np.ones(10), 60).astype(np.float32))
SIZES = (60, 13, 60, 33)  # batches of 16 and less, and other numbers of steps


def lessons(optimizer: str, anchored: bool) -> list[Lesson]:
    found = []
    for place, size in enumerate(SIZES):
        how = Fit(1 + size // 8, 16, 0.01, optimizer, 0.9, 5e-4, "cosine")  # type: ignore[arg-type]
        anchor = Anchor(IMAGES[:20], SOFT[:20], kd_from_probabilities_at_2, 0.5) if anchored else None
        found.append(Lesson("revisit", IMAGES[:size], LABELS[:size], how, F.cross_entropy, place, anchor))
    return found


def kd_from_probabilities_at_2(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return kd_from_probabilities(student, teacher, temperature=2.0)


def dense(task: Task) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, task.classes))


# Adam with a dense student only: where a BatchNorm makes a gradient vanish, it makes whole steps out of roundings.
@pytest.mark.parametrize(
    ("student", "optimizer", "anchored"),
    [
        (architecture("tiny-conv-s"), "sgd", False),
        (architecture("tiny-separable-s"), "sgd", True),
        (dense, "sgd", False),
        (dense, "adam", False),
        (dense, "adam", True),
    ],
)
def test_students_learn_together_what_they_learn_alone(student: Architecture, optimizer: str, anchored: bool) -> None:
    models = [build(student, DIGITS, seed) for seed in range(len(SIZES))]
    cohort = Cohort(models[0], [state_of(model) for model in models])
    plan = lessons(optimizer, anchored)
    cohort.teach([None, *plan[1:]], DIGITS)
    together = cohort.logits(IMAGES, DIGITS)
    own = cohort.own_logits([IMAGES[place : place + 7] for place in range(len(SIZES))], DIGITS)
    for place, (model, lesson) in enumerate(zip(models, plan, strict=True)):
        if place:
            teach(model, lesson, DIGITS)
        state = cohort.state(place)
        assert list(state) == list(model.state_dict())
        for name, value in state_of(model).items():
            assert torch.allclose(state[name].float(), value.float(), atol=2e-4), name
        assert torch.allclose(together[place], logits(model, IMAGES, DIGITS), atol=2e-3)
        assert torch.allclose(own[place], logits(model, IMAGES[place : place + 7], DIGITS), atol=2e-3)


def test_the_states_given_stay_as_they_are() -> None:
    models = [build(architecture("tiny-separable-s"), DIGITS, seed) for seed in range(2)]
    before = [state_of(model) for model in models]
    Cohort(models[0], [model.state_dict() for model in models]).teach(lessons("sgd", anchored=False)[:2], DIGITS)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_no_image_gives_no_logits() -> None:
    alone = build(architecture("tiny-conv-s"), DIGITS, 0)
    assert Cohort(alone, [state_of(alone)]).logits(IMAGES[:0], DIGITS).shape == (1, 0, 10)


def test_a_state_of_another_architecture_is_refused() -> None:
    alone = build(architecture("tiny-conv-s"), DIGITS, 0)
    state = state_of(alone)
    del state[next(iter(state))]
    with pytest.raises(KeyError):
        Cohort(alone, [state])
