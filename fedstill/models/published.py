"""Networks of published protocols, layer by layer as there, for runs that stand beside their figures."""

from collections.abc import Callable

from torch import nn

from fedstill.tasks import Task


def fedgen_mnist(task: Task) -> nn.Module:
    """Return FedGen's network for MNIST (Zhu et al. 2021, arXiv 2105.10056): 26,434 parameters there.

    Two 3x3 convolutions of stride 2 with BatchNorm, then two linear layers with nothing between them.
    """
    channels, height, width = task.input_shape
    places = ((height + 3) // 4) * ((width + 3) // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, 2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 16, 3, 2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(16 * places, 32),
        nn.Linear(32, task.classes),
    )


def selective_fd_mnist(task: Task) -> nn.Module:
    """Return Selective-FD's network for MNIST (Shao et al. 2024): 21,840 parameters there; its dropout is left out.

    Two 5x5 convolutions with 2x2 max pooling, then two linear layers.
    """
    channels, height, width = task.input_shape
    places = (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Conv2d(10, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(20 * places, 50),
        nn.ReLU(inplace=True),
        nn.Linear(50, task.classes),
    )


PUBLISHED: dict[str, Callable[[Task], nn.Module]] = {
    "fedgen-mnist": fedgen_mnist,
    "selective-fd-mnist": selective_fd_mnist,
}
