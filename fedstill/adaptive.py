"""Distillation losses whose temperature or weights follow the student's own state.

A class student has no true labels, so where a paper adds the labels' cross-entropy, these add the plain loss at T = 1
(`blended`). Shapes: logits and soft labels `[batch, classes]`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstill.learning import Loss
from fedstill.losses import kd_from_probabilities

TINY = 1e-8


def standardized(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL of softmax(Z(z) / T) with Z the z-score over a sample's classes (Sun et al. 2024, arXiv 2403.01427).

    Each sample's temperature so is T times the standard deviation of its own logits, on either side: the student is to
    order and space the classes as the teacher does, not to reach its scale. With two classes only their order is left.

    Args:
        student: student logits z.
        teacher: probabilities at T = 1, as they travel; their logarithms are logits v up to a shift, which Z removes.
        temperature: the base temperature tau.
    """
    scores = _z_score(torch.log(teacher.clamp_min(TINY)))
    return kd_from_probabilities(_z_score(student), F.softmax(scores, dim=1), temperature)


def _z_score(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + 1e-7)


def weighted(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean of w * T^2 * KL by sample, w = 1 - exp(-L_s / L_t) (Zhou et al. 2021, arXiv 2102.00650, section 4).

    A sample that the student knows much better than the teacher has a small weight: its soft label would only blur it.

    Args:
        student: student logits z.
        teacher: probabilities at T = 1; their largest one stands for the true class of the paper.
        temperature: T.
    """
    logs = F.log_softmax(student.detach(), dim=1)
    surest, likely = teacher.max(dim=1)
    own = -logs.gather(1, likely[:, None]).squeeze(1)  # L_s [batch]
    teachers = -torch.log(surest.clamp(TINY, 1 - 1e-4))  # L_t [batch]
    weights = 1 - torch.exp(-own / teachers)
    target = F.softmax(torch.log(teacher.clamp_min(TINY)) / temperature, dim=1)
    by_sample = F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="none").sum(dim=1)
    return temperature**2 * (weights * by_sample).mean()


class CurriculumTemperature:
    """T^2 * KL at a T that is learned against the student (CTKD with a global T, Li et al. 2023, arXiv 2211.16231).

    T = start + span * sigmoid(x) climbs the loss that the student descends: the student is shown what it does worst.
    How fast it climbs, lambda, grows from 0 to 1 over the fit, so that learning begins easy. It begins anew in each
    fit, so there is no state to keep between rounds.

    Args:
        start: tau_init, the least T.
        steps: optimizer steps of the fit.
        rate: learning rate of x.
    """

    SPAN = 20.0
    """tau_range: T stays below `start` + this."""

    def __init__(self, start: float, steps: int, rate: float) -> None:
        self._start, self._steps, self._rate = start, steps, rate
        self._raw = torch.ones(())
        self._step = 0

    @property
    def temperature(self) -> float:
        """T now."""
        return self._start + self.SPAN * float(torch.sigmoid(self._raw))

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of a batch, and let T take its step."""
        raw = self._raw.clone().requires_grad_()
        temperature = self._start + self.SPAN * torch.sigmoid(raw)
        logs = F.log_softmax(student.detach() / temperature, dim=1)
        target = F.softmax(torch.log(teacher.clamp_min(TINY)) / temperature, dim=1)
        seen = temperature**2 * F.kl_div(logs, target, reduction="batchmean")
        (slope,) = torch.autograd.grad(seen, raw)
        value = kd_from_probabilities(student, teacher, self.temperature)
        share = (1 - math.cos(math.pi * min(1.0, self._step / self._steps))) / 2
        self._raw = self._raw + share * self._rate * slope
        self._step += 1
        return value


def blended(loss: Loss, share: float) -> Loss:
    """Return `share` of a loss and the rest of the plain one at T = 1."""

    def value(student: Tensor, teacher: Tensor) -> Tensor:
        return share * loss(student, teacher) + (1 - share) * kd_from_probabilities(student, teacher, 1)

    return value
