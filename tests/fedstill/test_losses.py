import math

import pytest
import torch
import torch.nn.functional as F

from fedstill.losses import (
    hinton,
    kd,
    kd_from_probabilities,
    logit_adjusted,
    logit_mse,
    soft_cross_entropy,
    soften,
)

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = torch.randn(6, 5, generator=GENERATOR)
TEACHER = torch.randn(6, 5, generator=GENERATOR) * 3
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_kd_is_zero_for_equal_logits_and_positive_otherwise() -> None:
    assert kd(TEACHER, TEACHER, 4.0).item() == pytest.approx(0, abs=1e-6)
    assert kd(STUDENT, TEACHER, 4.0).item() > 0


def test_kd_is_the_mean_over_samples_of_the_divergence_from_teacher_to_student() -> None:
    log_student, target = F.log_softmax(STUDENT / 2, dim=1), F.softmax(TEACHER / 2, dim=1)
    by_hand = (target * (target.log() - log_student)).sum(dim=1).mean() * 4
    assert kd(STUDENT, TEACHER, 2.0).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_kd_does_not_shrink_with_the_number_of_classes_or_samples() -> None:
    twice = kd(STUDENT.repeat(2, 1), TEACHER.repeat(2, 1), 2.0)
    assert twice.item() == pytest.approx(kd(STUDENT, TEACHER, 2.0).item(), rel=1e-5)


def test_the_gradient_keeps_its_size_when_the_temperature_grows() -> None:
    norms = []
    for temperature in (4.0, 16.0):
        student = STUDENT.clone().requires_grad_()
        kd(student, TEACHER, temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        norms.append(student.grad.norm().item())
    assert 0.5 < norms[0] / norms[1] < 2


def test_a_teacher_known_by_probabilities_gives_the_same_loss_as_one_known_by_logits() -> None:
    from_logits = kd(STUDENT, TEACHER, 3.0)
    from_probabilities = kd_from_probabilities(STUDENT, F.softmax(TEACHER, dim=1), 3.0)
    assert from_probabilities.item() == pytest.approx(from_logits.item(), rel=1e-4)


def test_softening_flattens_and_temperature_one_is_identity() -> None:
    rows = F.softmax(TEACHER, dim=1)
    assert torch.allclose(soften(rows, 1.0), rows, atol=1e-6)
    assert (soften(rows, 4.0).max(dim=1).values < rows.max(dim=1).values).all()


def test_hinton_mixes_soft_and_hard_parts_by_alpha() -> None:
    soft, hard = kd(STUDENT, TEACHER, 2.0).item(), F.cross_entropy(STUDENT, LABELS).item()
    assert hinton(STUDENT, TEACHER, LABELS, 2.0, 1.0).item() == pytest.approx(soft, rel=1e-6)
    assert hinton(STUDENT, TEACHER, LABELS, 2.0, 0.0).item() == pytest.approx(hard, rel=1e-6)
    assert hinton(STUDENT, TEACHER, LABELS, 2.0, 0.3).item() == pytest.approx(0.3 * soft + 0.7 * hard, rel=1e-5)


def test_logit_mse_ignores_a_common_shift() -> None:
    assert logit_mse(STUDENT + 7, STUDENT).item() == pytest.approx(0, abs=1e-9)
    assert logit_mse(STUDENT, TEACHER).item() > 0.1


def test_soft_cross_entropy_differs_from_kd_by_the_labels_entropy() -> None:
    rows = F.softmax(TEACHER, dim=1)
    entropy = -(rows * rows.log()).sum(dim=1).mean()
    difference = soft_cross_entropy(STUDENT, rows) - kd(STUDENT, TEACHER, 1.0)
    assert difference.item() == pytest.approx(entropy.item(), rel=1e-4)


def test_logit_adjustment_asks_less_of_frequent_classes() -> None:
    log_prior = torch.tensor([0.9, 0.1]).log()
    logits = torch.zeros(1, 2)
    frequent = logit_adjusted(logits, torch.tensor([0]), log_prior)
    rare = logit_adjusted(logits, torch.tensor([1]), log_prior)
    assert frequent.item() == pytest.approx(-math.log(0.9), rel=1e-5)
    assert rare.item() == pytest.approx(-math.log(0.1), rel=1e-5)
    assert logit_adjusted(logits, torch.tensor([1]), log_prior, tau=0).item() == pytest.approx(math.log(2), rel=1e-5)
