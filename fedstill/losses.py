"""Distillation losses. All take logits, average over the batch, and point from teacher to student.

Shapes: logits and soft labels `[batch, classes]`, labels `[batch]`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of the softened distributions (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Args:
        student: student logits z.
        teacher: teacher logits v.
        temperature: T; divides both, and T^2 keeps the gradient's size when T changes.
    """
    return kd_from_probabilities(student, F.softmax(teacher, dim=1), temperature)


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Return the softmax at `temperature` of the logits whose softmax at 1 is `probabilities`."""
    return F.softmax(torch.log(probabilities.clamp_min(1e-8)) / temperature, dim=1)


def kd_from_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`kd` where the teacher is known by its probabilities at T = 1, as they travel."""
    target = soften(teacher, temperature) if temperature != 1 else teacher
    # F.kl_div in its parts, to the bit: as a whole it can't be computed for several students at once.
    logs = F.log_softmax(student / temperature, dim=1)
    divergence = (torch.xlogy(target, target) - target * logs).sum() / len(target)
    return temperature**2 * divergence


def hinton(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """Alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy with the labels (Hinton et al. 2015).

    Args:
        student: student logits z.
        teacher: teacher logits v.
        labels: true classes.
        temperature: T.
        alpha: weight of the soft part, in [0, 1].
    """
    return alpha * kd(student, teacher, temperature) + (1 - alpha) * F.cross_entropy(student, labels)


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of centred logits (Ba and Caruana 2014, arXiv 1312.6184, equation 1).

    Both sides are centred, because softmax ignores a common shift.
    """
    centred_student = student - student.mean(dim=1, keepdim=True)
    centred_teacher = teacher - teacher.mean(dim=1, keepdim=True)
    return F.mse_loss(centred_student, centred_teacher)


def soft_cross_entropy(student: Tensor, probabilities: Tensor) -> Tensor:
    """Cross-entropy of the student with soft labels; differs from `kd` at T = 1 by the labels' entropy only."""
    return -(probabilities * F.log_softmax(student, dim=1)).sum(dim=1).mean()


def logit_adjusted(logits: Tensor, labels: Tensor, log_prior: Tensor, tau: float = 1.0) -> Tensor:
    """Cross-entropy of logits + tau * log prior (Menon et al. 2021, arXiv 2007.07314, equation 10).

    Training so makes the bare logits those of a balanced class prior.

    Args:
        logits: f(x).
        labels: y.
        log_prior: log pi of the device's own classes, floored for absent ones `[classes]`.
        tau: 0 is plain cross-entropy, 1 the consistent adjustment.
    """
    if tau == 0:
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits + tau * log_prior, labels)
