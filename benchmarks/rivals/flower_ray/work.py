"""The work of one device in one round, in plain torch: what both sides of `python -m benchmarks.fleet` do.

Three steps of plain SGD on 60 private images, then class probabilities of 1,000 public ones. Every device has weights
of its own, which last from round to round.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.rivals.flower_ray.data import BATCH, CLASSES, RATE, SIDE

BLOCK = 100


def mlp(task: Any = None) -> nn.Module:
    """Return an MLP 784-128-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, CLASSES))


def cnn(task: Any = None) -> nn.Module:
    """Return a small depthwise separable network."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


STUDENTS = {"mlp": mlp, "cnn": cnn}


def normalized(pixels: NDArray[np.uint8]) -> Tensor:
    """Return float images, about as large as a trained network expects them."""
    return (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5


def learn(
    model: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.int64], seed: int, device: str = "cpu"
) -> None:
    """Take one pass of plain SGD over a device's images; the model is on the torch device `device`."""
    inputs, targets = normalized(pixels).to(device), torch.from_numpy(labels).to(device)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    model.train()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    for rows in torch.split(order.to(device), BATCH):
        loss = F.cross_entropy(model(inputs[rows]), targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def probabilities(model: nn.Module, pixels: NDArray[np.uint8], device: str = "cpu") -> NDArray[np.float16]:
    """Return class probabilities of public images `[samples, classes]`, in blocks that suit a core's cache.

    A GPU gets all at once.
    """
    model.eval()
    block = BLOCK if device == "cpu" else len(pixels)
    parts = [model(normalized(pixels[start : start + block]).to(device)) for start in range(0, len(pixels), block)]
    rows: NDArray[np.float16] = F.softmax(torch.cat(parts), dim=1).cpu().numpy().astype(np.float16)
    return rows
