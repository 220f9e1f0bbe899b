"""How many students of an architecture to compute at once: what a short measurement finds fastest."""

import logging
import time

import numpy as np
import torch
import torch.nn.functional as F

from fedstill.cohorts import Cohort
from fedstill.failures import told
from fedstill.fit import Fit
from fedstill.learning import Lesson, block, build, logits, state_of, teach
from fedstill.models import architecture
from fedstill.tasks import Task

log = logging.getLogger("fedstill")
CHUNKS = {"cpu": (1, 10, 50), "cuda": (10, 50, 200)}  # large ones leave a core's cache, and fill a GPU
_measured: dict[tuple[str, str, int, str, str], int] = {}
BLOCKS = 4  # of predicted samples beside two steps: devices predict more than they learn


def best_chunk(student: str, task: Task, batch: int, device: str) -> int:
    """Return the chunk size with the least time per student, of a few; takes about a second, once in a process.

    Args:
        student: the architecture.
        task: what it learns.
        batch: samples in a step.
        device: torch device.
    """
    key = (student, task.name, batch, device, torch.get_float32_matmul_precision())
    if key not in _measured:
        _measured[key] = min(CHUNKS[device], key=lambda size: _seconds_or_never(student, task, batch, device, size))
    return _measured[key]


def _seconds_or_never(student: str, task: Task, batch: int, device: str, size: int) -> float:
    try:
        return seconds(student, task, batch, device, size)
    except Exception as error:  # whatever an architecture does that students can't do together
        log.warning("%s can't be computed %d at once: %s", student, size, told(error))
        return float("inf")


def seconds(student: str, task: Task, batch: int, device: str, size: int) -> float:
    """Return the seconds per student of two steps and some predictions, `size` students at once."""
    model = build(architecture(student), task, seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BLOCKS * block(task), *task.input_shape), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, task.classes, batch))
    how = Fit(steps=2, batch=batch, learning_rate=0.0, optimizer="sgd")
    lesson = Lesson("measure", images[:batch], labels, how, F.cross_entropy, seed=0)
    state = state_of(model)
    best = float("inf")
    for _ in range(2):  # the first one also loads code and fills caches
        started = time.perf_counter()
        if size == 1 and device == "cpu":
            teach(model, lesson, task)
            logits(model, images, task)
        else:
            cohort = Cohort(model, [state] * size, device)
            cohort.teach([lesson] * size, task)
            cohort.logits(images, task)
        best = min(best, time.perf_counter() - started)
    return best / size
