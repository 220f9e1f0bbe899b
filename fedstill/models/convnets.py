"""Small convolutional networks: plain and depthwise separable 3x3 convolutions with BatchNorm, in stages.

BatchNorm folds into the convolution before it on export, and for predictions (`ConvNet.folded`), so it costs a device
nothing. Pooled networks average over the image before the head; strided ones halve the image in the first block of each
stage, which makes them the cheapest, and keep the places of features for the head, which small networks on centred grey
images need.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from fedstill.models.folding import Function, sequence
from fedstill.tasks import Task

Block = Callable[[int, int, int], nn.Module]


def convolution(inputs: int, outputs: int, stride: int, kernel: int = 3) -> nn.Module:
    """Return a plain convolution block."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return a depthwise 3x3 and a pointwise block (MobileNet, Howard et al. 2017, arXiv 1704.04861)."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ConvNet(nn.Module):
    """Blocks, pooling layers between them, and a linear head."""

    features: nn.Sequential
    head: nn.Linear

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of normalized images `[batch, channels, height, width]`."""
        return self.scores(self.features(images))

    def scores(self, features: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of what the blocks make of images."""
        logits: Tensor = self.head(features)
        return logits

    def folded(self) -> Function:
        """Return the network as it is now, for evaluation, with BatchNorm folded."""
        features = sequence(self.features)
        return lambda images: self.scores(features(images))


class PooledNet(ConvNet):
    """Stages of blocks with 2x2 max pooling between stages, a mean over the image, a linear head."""

    def __init__(self, task: Task, stages: tuple[tuple[int, ...], ...], block: Block) -> None:
        super().__init__()
        width = task.input_shape[0]
        layers: list[nn.Module] = []
        for place, stage in enumerate(stages):
            if place:
                layers.append(nn.MaxPool2d(2))
            for outputs in stage:
                # Few input channels leave nothing to separate: the first block is always a plain convolution.
                layers.append(block(width, outputs, 1) if layers else convolution(width, outputs, 1))
                width = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, task.classes)

    def scores(self, features: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of what the blocks make of images."""
        return super().scores(features.mean(dim=(2, 3)))


class StridedNet(ConvNet):
    """Stages that each begin with a block of stride 2 (the first one 5x5), and a linear head on all places."""

    def __init__(self, task: Task, stages: tuple[tuple[int, ...], ...], block: Block) -> None:
        super().__init__()
        width, height, breadth = task.input_shape
        layers: list[nn.Module] = []
        for stage in stages:
            height, breadth = (height + 1) // 2, (breadth + 1) // 2
            for place, outputs in enumerate(stage):
                stride = 2 if place == 0 else 1
                layers.append(block(width, outputs, stride) if layers else convolution(width, outputs, stride, 5))
                width = outputs
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(width * height * breadth, task.classes)


def _pooled(*stages: tuple[int, ...], block: Block = convolution) -> Callable[[Task], nn.Module]:
    return partial(PooledNet, stages=stages, block=block)


def _strided(*stages: tuple[int, ...], block: Block = convolution) -> Callable[[Task], nn.Module]:
    return partial(StridedNet, stages=stages, block=block)


ARCHITECTURES: dict[str, Callable[[Task], nn.Module]] = {
    "pooled-conv-xl": _pooled((32,), (64,), (128, 128), (256,)),
    "pooled-conv-l": _pooled((24,), (48,), (96,), (128,)),
    "pooled-conv-m": _pooled((16,), (32,), (64,), (128,)),
    "pooled-separable-l": _pooled((24,), (64,), (128, 128), (192,), block=separable),
    "pooled-separable-m": _pooled((16,), (48,), (96, 96), (128,), block=separable),
    "pooled-grey-xl": _pooled((16,), (32, 32), (64, 64)),
    "strided-conv-l": _strided((24,), (48,), (96,)),
    "strided-conv-m": _strided((16,), (32,)),
    "strided-separable-l": _strided((16,), (32,), (64,), block=separable),
    "strided-separable-m": _strided((12,), (24,), (48,), block=separable),
    "tiny-conv-l": _pooled((32, 32), (64, 64)),
    "tiny-conv-m": _pooled((16, 16), (32, 32)),
    "tiny-conv-s": _pooled((12,), (24, 24)),
    "tiny-separable-m": _pooled((24, 48), (64,), block=separable),
    "tiny-separable-s": _pooled((16, 32), (48,), block=separable),
}
