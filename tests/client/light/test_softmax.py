"""The NumPy head does what torch does with the same losses, optimizers and batches."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from client.light.softmax import Distillation, Gradient, LogitAdjusted, Part, teach
from fedstill.fit import Fit
from fedstill.losses import kd_from_probabilities, logit_adjusted
from fedstill.soft_labels import Floats

RNG = np.random.default_rng(0)
SAMPLES, WIDTH, CLASSES = 40, 6, 4
FEATURES = np.concatenate([RNG.normal(size=(SAMPLES, WIDTH)), np.ones((SAMPLES, 1))], axis=1).astype(np.float32)
SOFT: Floats = RNG.dirichlet(np.ones(CLASSES), SAMPLES).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, SAMPLES)
SHIFT = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
HEAD: Floats = RNG.normal(size=(WIDTH + 1, CLASSES)).astype(np.float32)
CASES: dict[str, tuple[Gradient, Callable[[Tensor], Tensor]]] = {
    "digest": (Distillation(SOFT, 1.0), lambda z: kd_from_probabilities(z, torch.from_numpy(SOFT), 1.0)),
    "warm digest": (Distillation(SOFT, 3.0), lambda z: kd_from_probabilities(z, torch.from_numpy(SOFT), 3.0)),
    "revisit": (
        LogitAdjusted(LABELS, SHIFT),
        lambda z: logit_adjusted(z, torch.from_numpy(LABELS), torch.from_numpy(SHIFT)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_gradient_is_torchs(name: str) -> None:
    gradient, loss = CASES[name]
    logits = torch.from_numpy(FEATURES @ HEAD).requires_grad_()
    loss(logits).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    ours = gradient(FEATURES @ HEAD, np.arange(SAMPLES)) / SAMPLES
    assert np.abs(ours - logits.grad.numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("how", "optimizer"),
    [
        (
            Fit(steps=7, batch=SAMPLES, learning_rate=0.05, optimizer="sgd", weight_decay=0.01),
            lambda weights: torch.optim.SGD(weights, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (
            Fit(steps=7, batch=SAMPLES, learning_rate=0.05, optimizer="sgd", momentum=0.0),
            lambda weights: torch.optim.SGD(weights, 0.05),
        ),
        (
            Fit(steps=7, batch=SAMPLES, learning_rate=0.05, optimizer="adam", weight_decay=0.01),
            lambda weights: torch.optim.AdamW(weights, 0.05, weight_decay=0.01),
        ),
    ],
)
def test_each_optimizer_takes_torchs_steps(
    how: Fit, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    weights = torch.from_numpy(HEAD.copy()).requires_grad_()
    steps = optimizer([weights])
    for _ in range(how.steps):
        steps.zero_grad()
        # The weights of both parts add up, as those of an anchor's do.
        logits = torch.from_numpy(FEATURES) @ weights
        value = CASES["revisit"][1](logits) + 0.5 * CASES["warm digest"][1](logits)
        value.backward()  # type: ignore[no-untyped-call]
        steps.step()
    parts = (Part(FEATURES, CASES["revisit"][0]), Part(FEATURES, CASES["warm digest"][0], 0.5))
    ours = teach(HEAD, parts, how, np.random.default_rng(1))
    assert np.abs(ours - weights.detach().numpy()).max() < 1e-5


def test_features_of_any_length_do_not_make_it_diverge() -> None:
    labels = (FEATURES @ HEAD).argmax(axis=1)
    part = Part(1000 * FEATURES, LogitAdjusted(labels, np.zeros(CLASSES, dtype=np.float32)))
    how = Fit(steps=200, batch=8, learning_rate=0.5, optimizer="sgd")
    head = teach(np.zeros_like(HEAD), (part,), how, np.random.default_rng(0))
    assert ((part.features @ head).argmax(axis=1) == labels).mean() > 0.8
