"""Networks as they predict: BatchNorm folded into the convolution before it, ReLU in place.

Predictions of small networks are bound by the memory that their activations go through, and either is a pass of its own
in evaluation mode.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Function = Callable[[Tensor], Tensor]


@runtime_checkable
class Folds(Protocol):
    """A network that knows its own form for predictions."""

    def folded(self) -> Function:
        """Return what makes logits of normalized images, as the network is now, in evaluation mode."""


def folded(model: nn.Module) -> Function:
    """Return what a network computes as it is now, in evaluation mode; one of unknown structure stays as it is."""
    if isinstance(model, Folds):
        return model.folded()
    return sequence(model) if type(model) is nn.Sequential else model


def sequence(layers: nn.Sequential) -> Function:
    """Return what layers compute one after the other, nested ones too."""
    functions = list(_functions(list(_flat(layers))))

    def apply(values: Tensor) -> Tensor:
        for function in functions:
            values = function(values)
        return values

    return apply


def _flat(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if type(layer) is nn.Sequential:
            yield from _flat(layer)
        else:
            yield layer


def _functions(layers: list[nn.Module]) -> Iterator[Function]:
    before: nn.Module | None = None
    for layer, following in pairwise([*layers, None]):
        assert layer is not None
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d) and _folds(layer, following):
            yield _convolution(layer, following)
        elif isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d) and _folds(before, layer):
            pass
        elif type(layer) is nn.ReLU and isinstance(before, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            yield Tensor.relu_  # of what the layer before has just made
        else:
            yield layer
        before = layer


def _folds(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and norm.running_mean is not None


def _convolution(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Function:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    how = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    return partial(F.conv2d, weight=weight.detach(), bias=bias.detach(), **how)
