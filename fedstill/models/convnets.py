"""Small convolutional networks: plain and depthwise separable 3x3 convolutions with BatchNorm, in stages.

BatchNorm folds into the convolution before it on export, and for predictions (`ConvNet.folded`), so it costs a device
nothing. Pooled networks average over the image before the head; strided ones halve the image in the first block of each
stage, which makes them the cheapest, and keep the places of features for the head, which small networks on centred grey
images need.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

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

    def folded(self) -> Callable[[Tensor], Tensor]:
        """Return the network as it is now, for evaluation, with BatchNorm folded: less goes through memory."""
        steps = [_folded(layer) if isinstance(layer, nn.Sequential) else layer for layer in self.features]

        def logits(images: Tensor) -> Tensor:
            for step in steps:
                images = step(images)
            return self.scores(images)

        return logits


def _folded(block: nn.Sequential) -> Callable[[Tensor], Tensor]:
    """Return a block's function, of convolution, BatchNorm and ReLU once or twice, with the BatchNorm folded."""
    convolved = []
    for place in range(0, len(block), 3):
        conv, norm = block[place], block[place + 1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        how = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups}
        convolved.append(partial(F.conv2d, weight=weight.detach(), bias=bias.detach(), **how))

    def apply(images: Tensor) -> Tensor:
        for one in convolved:
            images = one(images).relu_()
        return images

    return apply


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
