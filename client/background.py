"""Certainty by background: a device learns its own classes against the proxy set as a whole.

The student's logits l(x) are read as log density ratios. Beside the classes that the device holds stands a background
whose logit is always zero, and every proxy sample that is not known to be of a held class is an example of it:

    p(y | x) = exp(l_y) / (1 + sum_h exp(l_h)),    certainty(x) = 1 - p(background | x),    h over the held classes.

That is noise contrastive estimation (Gutmann and Hyvarinen 2010, AISTATS) with the proxy set as noise, which makes
exp(l_y) the ratio of the device's density of class y to the proxy set's, as in Selective-FD (Shao et al. 2024, Nature
Communications 15) but by the student itself rather than by a kernel on pixels. The proxy set holds samples of the
device's own classes too (learning from positive and unlabelled data, Elkan and Noto 2008, KDD); they make the device
less certain than it could be, by the same factor everywhere, and the consensus takes them out: a proxy sample whose
label is known to be of a held class is an example of that class.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstill.cache import LabelCache
from fedstill.fit import Fit
from fedstill.learning import Anchor, Lesson
from fedstill.soft_labels import Bools, Floats, Ints
from fedstill.tasks import Images

UNHELD = -1e9  # a logit that no softmax hears


def with_background(logits: Tensor, held: Tensor) -> Tensor:
    """Return logits `[batch, classes + 1]`: classes not held masked out, the background's zero last.

    Args:
        logits: the student's l(x) `[batch, classes]`.
        held: classes that the device holds `[classes]`.
    """
    return torch.cat([logits.masked_fill(~held, UNHELD), logits.new_zeros(len(logits), 1)], dim=1)


def background_loss(logits: Tensor, targets: Tensor, held: Tensor) -> Tensor:
    """Cross-entropy over the held classes and the background, whose target is the number of classes."""
    return F.cross_entropy(with_background(logits, held), targets)


def targets(cache: LabelCache, ids: Ints, held: Bools, usable: Ints) -> Ints:
    """Return what proxy samples are examples of: the held class that a label in use has for them, else the background.

    Args:
        cache: the device's label cache.
        ids: proxy samples `[samples]`.
        held: classes that the device holds `[classes]`.
        usable: samples whose label is in use, ascending; others may be known, and have expired.
    """
    labels = cache.labels[ids].argmax(axis=1).astype(np.int64)
    known = np.isin(ids, usable) & (cache.labels[ids].max(axis=1) > 0) & held[labels]
    found: Ints = np.where(known, labels, cache.labels.shape[1]).astype(np.int64)
    return found


def lesson(private: tuple[Images, Ints], proxy: tuple[Images, Ints], held: Bools, how: Fit, seed: int) -> Lesson:
    """Return the fit to private samples and, in each step, as many proxy samples.

    Args:
        private: images and their classes `[samples]`.
        proxy: proxy images and their `targets` `[samples]`.
        held: classes that the device holds `[classes]`.
        how: steps and optimizer.
        seed: of this fit's random stream.
    """
    loss = partial(background_loss, held=torch.from_numpy(held))
    background = Anchor(proxy[0], torch.from_numpy(proxy[1]), loss, weight=1.0)
    return Lesson("revisit", private[0], torch.from_numpy(np.array(private[1])), how, loss, seed, background)


def predicted(logits: Tensor, held: Bools) -> tuple[Floats, Floats]:
    """Return probabilities of the held classes, given that it is one of them, and the certainty that it is.

    Args:
        logits: of un-augmented images in eval mode `[samples, classes]`.
        held: classes that the device holds `[classes]`.

    Returns:
        rows on the simplex `[samples, classes]`, certainty in [0, 1] `[samples]`.
    """
    rows = F.softmax(logits.masked_fill(~torch.from_numpy(held), UNHELD), dim=1)
    certainty = 1 - F.softmax(with_background(logits, torch.from_numpy(held)), dim=1)[:, -1]
    return rows.numpy(), certainty.clamp(0, 1).numpy()
