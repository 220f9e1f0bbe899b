import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstill.adaptive import CurriculumTemperature, blended, standardized, weighted
from fedstill.losses import kd_from_probabilities


def logits(seed: int, samples: int = 6, classes: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32))


STUDENT, TEACHER = logits(0), F.softmax(2 * logits(1), dim=1)


def test_standardized_logits_forgive_any_shift_and_scale_of_a_sample() -> None:
    value = standardized(STUDENT, TEACHER, 2.0)
    scale = torch.linspace(0.5, 3, len(STUDENT))[:, None]
    assert value > 0
    assert torch.allclose(standardized(scale * STUDENT + 7, TEACHER, 2.0), value, atol=1e-5)
    assert standardized(3 * torch.log(TEACHER), TEACHER, 2.0) == pytest.approx(0, abs=1e-5)


def test_a_student_that_orders_the_classes_otherwise_pays_more() -> None:
    assert standardized(-torch.log(TEACHER), TEACHER, 2.0) > standardized(torch.log(TEACHER) ** 3, TEACHER, 2.0)


def test_a_sample_that_the_student_knows_weighs_less_than_one_that_it_does_not() -> None:
    sure, unsure = torch.tensor([[9.0, 0, 0]]), torch.tensor([[0.0, 9, 0]])
    teacher = torch.tensor([[0.8, 0.15, 0.05]])
    plain = [float(kd_from_probabilities(student, teacher, 2.0)) for student in (sure, unsure)]
    ratios = [
        float(weighted(student, teacher, 2.0)) / value for student, value in zip((sure, unsure), plain, strict=True)
    ]
    assert ratios[0] < 0.01
    assert ratios[1] == pytest.approx(1, abs=1e-3)


def test_weights_follow_the_formula_and_carry_no_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    weighted(student, TEACHER, 2.0).backward()  # type: ignore[no-untyped-call]
    likely = TEACHER.argmax(dim=1)
    own = F.cross_entropy(STUDENT, likely, reduction="none")
    weights = 1 - torch.exp(own / torch.log(TEACHER.max(dim=1).values))
    again = STUDENT.clone().requires_grad_()
    target = F.softmax(torch.log(TEACHER) / 2, dim=1)
    rows = F.kl_div(F.log_softmax(again / 2, dim=1), target, reduction="none").sum(dim=1)
    (4 * (weights * rows).mean()).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert again.grad is not None
    assert torch.allclose(student.grad, again.grad, atol=1e-6)


def test_a_certain_teacher_and_a_certain_student_give_finite_losses() -> None:
    teacher = torch.eye(3)
    for student in (100 * torch.eye(3), -100 * torch.eye(3), torch.zeros(3, 3)):
        for value in (standardized(student, teacher, 1.0), weighted(student, teacher, 1.0)):
            assert value.isfinite()
        assert CurriculumTemperature(1.0, 10, 0.1)(student, teacher).isfinite()


def test_the_curriculum_climbs_the_loss_ever_faster_and_stays_in_its_range() -> None:
    found = CurriculumTemperature(1.0, steps=50, rate=0.5)
    seen, losses = [found.temperature], []
    for _ in range(50):
        losses.append(float(found(STUDENT, TEACHER)))
        seen.append(found.temperature)
    assert seen[0] == seen[1] == pytest.approx(1 + 20 / (1 + np.exp(-1)))
    assert losses[-1] > losses[0]
    assert abs(seen[50] - seen[40]) > abs(seen[11] - seen[1])
    assert all(1 < value < 21 for value in seen)


def test_the_curriculum_teaches_the_student_with_the_plain_loss_at_its_temperature() -> None:
    student = STUDENT.clone().requires_grad_()
    found = CurriculumTemperature(1.0, steps=10, rate=0.5)
    temperature = found.temperature
    value = found(student, TEACHER)
    assert torch.equal(value, kd_from_probabilities(student, TEACHER, temperature))
    value.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None


def test_the_rest_of_a_blend_is_the_plain_loss() -> None:
    only = blended(lambda student, teacher: torch.zeros(()), 0.75)
    assert torch.allclose(only(STUDENT, TEACHER), 0.25 * kd_from_probabilities(STUDENT, TEACHER, 1))
