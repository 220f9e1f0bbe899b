"""What a network predicts is what it computes, whatever is folded for that."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedstill.learning import build
from fedstill.models import architecture
from fedstill.models.convnets import ARCHITECTURES
from fedstill.models.folding import folded
from fedstill.tasks import Arrays, Task

SHAPE = (3, 16, 16)


def no_data(folder: object) -> Arrays:
    raise AssertionError("not needed")


TASK = Task("t", tuple("abcdefg"), SHAPE, no_data)


class Unknown(nn.Sequential):
    """Computes something that its layers don't say."""

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = 2 * super().forward(images)  # type: ignore[no-untyped-call]
        return result


def nested(task: Task) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),  # of the images themselves, which must stay
        nn.BatchNorm2d(3),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, dilation=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 6, 2, stride=2, groups=2),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.ReLU(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 9),
        nn.ReLU(),
        Unknown(nn.Linear(9, task.classes)),
    )


def unknown(task: Task) -> nn.Module:
    return Unknown(nn.Flatten(), nn.Linear(3 * 16 * 16, task.classes))


OWN: dict[str, Callable[[Task], nn.Module]] = {"nested": nested, "unknown": unknown}


@pytest.mark.parametrize("name", [*ARCHITECTURES, "pooled-separable[3,5/7]", *OWN])
def test_a_folded_network_answers_as_it_is_and_as_it_becomes(name: str) -> None:
    model = build(OWN.get(name) or architecture(name), TASK, seed=0)
    images = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    kept = images.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(3):  # scales, shifts and running statistics are no longer those of a fresh network
            optimizer.zero_grad()
            model.train()(images).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            plain = model.eval()(images)
            assert torch.allclose(folded(model)(images), plain, atol=1e-5 * float(plain.abs().max()))
    assert torch.equal(images, kept)
