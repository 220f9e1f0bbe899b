"""How a candidate learns: distillation from teacher and consensus, with pruning in between.

A pruned student distils while it shrinks (iterative pruning with retraining, Han et al. 2015, arXiv 1506.02626, and
Molchanov et al. 2017, arXiv 1611.06440, with the distillation loss for the retraining): half of the steps go to the
whole network; then `PHASES` times the least important channels go and the rest distils on, longest after the last time.
All candidates take the same number of steps, pruned or not.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstill.device_classes import NumericFormat
from fedstill.fit import Fit
from fedstill.learning import Anchor, State, fit, normalize, restored, state_of
from fedstill.losses import kd_from_probabilities
from fedstill.models.shapes import Shape
from fedstill.rng import stream, torch_seed
from fedstill.soft_labels import Floats, Ints
from fedstill.tasks import Images, Task, load_task
from server import students
from server.compress.prune import Importance, flops, prune

PHASES = 4
JUDGES = 256  # proxy samples that say which channels matter


@dataclass(frozen=True)
class Candidate:
    """A student that may be tried.

    Attributes:
        shape: of the network before pruning.
        sparsity: share of its operations that pruning takes away, in [0, 1).
        numeric: name of the numeric format it is released in.
        temperature: T of the distillation.
        alpha: weight of the soft labels, in (0, 1]; the rest is that of the server's true labels.
    """

    shape: Shape
    sparsity: float
    numeric: NumericFormat
    temperature: float
    alpha: float


@dataclass(frozen=True)
class Material:
    """What all candidates learn from and are judged on; no test sample is in it.

    Attributes:
        task: reference of the task.
        seed: of the run.
        images: proxy samples with a soft label `[samples, ...]`.
        labels: theirs, of teacher and consensus `[samples, classes]`.
        server: images and true labels of the server; None: it has none.
        validation: images that no candidate learns from, and their labels `[samples, classes]`: a true one is all on
            its class.
        calibration: proxy samples for formats that need some.
        how: how to fit; `steps` are those of a whole candidate.
    """

    task: str
    seed: int
    images: Images
    labels: Floats
    server: tuple[Images, Ints] | None
    validation: tuple[Images, Floats]
    calibration: Images
    how: Fit


def learn(candidate: Candidate, material: Material, importance: Importance = "taylor") -> tuple[Shape, State]:
    """Return the shape and the state of a candidate that has learned, pruned where it is to be.

    Raises:
        ExportError: its sparsity leaves nothing to prune.
    """
    shape = candidate.shape
    state = students.initial(material.task, str(shape), material.seed)
    if not candidate.sparsity:
        return shape, distil(shape, state, candidate, material, material.how.steps, 0)
    half = material.how.steps // 2
    state = distil(shape, state, candidate, material, half, 0)
    return pruned(shape, state, candidate, material, material.how.steps - half, importance)


def pruned(
    shape: Shape,
    state: State,
    candidate: Candidate,
    material: Material,
    steps: int,
    importance: Importance = "taylor",
    phases: int = PHASES,
) -> tuple[Shape, State]:
    """Return a trained student that has shrunk by the candidate's sparsity while it distilled for `steps` more steps.

    Args:
        shape: its shape.
        state: its state.
        candidate: says how much goes, and how it distils.
        material: what it learns from.
        steps: all of them; each phase but the last gets an eighth of them.
        importance: what says which channels matter.
        phases: in how many parts the channels go.
    """
    task = load_task(material.task)
    whole = flops(restored(shape.build, task, state), task)
    part = steps // 8
    for phase in range(1, phases + 1):
        limit = whole * (1 - candidate.sparsity * phase / phases)
        loss = partial(_loss, candidate=candidate, material=material, task=task, phase=phase)
        shape, state = prune(shape, state, task, limit, loss, importance)
        taken = part if phase < phases else steps - (phases - 1) * part
        state = distil(shape, state, candidate, material, taken, phase)
    return shape, state


def distil(shape: Shape, state: State, candidate: Candidate, material: Material, steps: int, phase: int) -> State:
    """Return a student's state after `steps` more steps of distillation; `phase` tells their random streams apart."""
    task = load_task(material.task)
    model = restored(shape.build, task, state)
    soft = partial(kd_from_probabilities, temperature=candidate.temperature)
    anchor = None
    if material.server is not None and candidate.alpha < 1:
        images, labels = material.server
        anchor = Anchor(images, torch.from_numpy(np.array(labels)), F.cross_entropy, 1 - candidate.alpha)
    fit(
        model,
        material.images,
        torch.from_numpy(material.labels),
        task,
        replace(material.how, steps=steps),
        lambda logits, targets: candidate.alpha * soft(logits, targets),
        torch_seed(material.seed, "compress", phase),
        anchor,
    )
    return state_of(model)


def _loss(model: nn.Module, candidate: Candidate, material: Material, task: Task, phase: int) -> Tensor:
    """Return the distillation loss on a batch of proxy samples."""
    order = stream(material.seed, "prune", phase).permutation(len(material.labels))[:JUDGES]
    logits = model(normalize(material.images[order], task))
    return kd_from_probabilities(logits, torch.from_numpy(material.labels[order]), candidate.temperature)
