"""Shapes: the convolutional families at any widths, each with a name from which it can be built again.

`pooled-separable[16,32/48]` has two stages of separable blocks, the first of 16 and 32 channels, the second of 48. So a
searched or pruned student is an architecture like any other: its name and its state are all that it takes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from torch import nn

from fedstill.errors import ConfigError
from fedstill.models.convnets import ARCHITECTURES, Block, PooledNet, StridedNet, convolution, separable
from fedstill.tasks import Task

Stages = tuple[tuple[int, ...], ...]
FAMILIES: dict[str, tuple[type[PooledNet] | type[StridedNet], Block]] = {
    "pooled-conv": (PooledNet, convolution),
    "pooled-separable": (PooledNet, separable),
    "strided-conv": (StridedNet, convolution),
    "strided-separable": (StridedNet, separable),
}
NAME = re.compile(rf"({'|'.join(FAMILIES)})\[([0-9,/]+)\]")
# A name may come from a file: it is not to fill the memory.
MAX_WIDTH, MAX_BLOCKS, MAX_WEIGHTS = 4096, 64, 50_000_000
MULTIPLE = 4  # kernels take channels in groups


@dataclass(frozen=True)
class Shape:
    """A family at given widths.

    Attributes:
        family: one of `FAMILIES`.
        stages: output channels of each block, by stage.
    """

    family: str
    stages: Stages

    def __str__(self) -> str:
        return f"{self.family}[{'/'.join(','.join(map(str, stage)) for stage in self.stages)}]"

    def build(self, task: Task) -> nn.Module:
        """Return a fresh network of this shape."""
        net, block = FAMILIES[self.family]
        return net(task, stages=self.stages, block=block)

    def scaled(self, width: float) -> "Shape":
        """Return the shape with `width` times the channels, in multiples of `MULTIPLE`; at 1 they stay as they are.

        No layer has more than `MAX_WIDTH`.
        """
        if width == 1:
            return self
        return self._with(
            tuple(min(MAX_WIDTH, max(MULTIPLE, MULTIPLE * round(width * channels / MULTIPLE))) for channels in stage)
            for stage in self.stages
        )

    def deepened(self, blocks: int) -> "Shape":
        """Return the shape with more blocks, like the last one, or with fewer, while a stage has more than one.

        It has `MAX_BLOCKS` at most.
        """
        stages = list(self.stages)
        if blocks > 0:
            stages[-1] += (stages[-1][-1],) * min(blocks, MAX_BLOCKS - sum(map(len, stages)))
        for _ in range(-blocks):
            longest = max(range(len(stages)), key=lambda place: (len(stages[place]), place))
            if len(stages[longest]) > 1:
                stages[longest] = stages[longest][:-1]
        return self._with(stages)

    def with_widths_of(self, model: nn.Module) -> "Shape":
        """Return the shape that a network built from this one has now, after channels were taken from it."""
        assert isinstance(model.features, nn.Sequential)
        widths = iter(
            [
                [layer.out_channels for layer in block.modules() if isinstance(layer, nn.Conv2d)][-1]
                for block in model.features
                if isinstance(block, nn.Sequential)
            ]
        )
        return self._with(tuple(next(widths) for _ in stage) for stage in self.stages)

    def _with(self, stages: Iterable[Iterable[int]]) -> "Shape":
        return Shape(self.family, tuple(tuple(stage) for stage in stages))


def parse_shape(name: str) -> Shape | None:
    """Return the shape that a name like `pooled-conv[16,16/32]` spells; None: it is a name of another kind.

    Raises:
        ConfigError: the widths can't be those of a network.
    """
    found = NAME.fullmatch(name)
    if found is None:
        return None
    try:
        stages = tuple(tuple(int(width) for width in stage.split(",")) for stage in found[2].split("/"))
    except ValueError as error:
        raise ConfigError(f"architecture {name!r}: a width is missing") from error
    blocks = [width for stage in stages for width in stage]
    if len(blocks) > MAX_BLOCKS or not all(1 <= width <= MAX_WIDTH for width in blocks):
        raise ConfigError(f"architecture {name!r}: at most {MAX_BLOCKS} blocks of 1 to {MAX_WIDTH} channels")
    weights = sum(9 * before * after for before, after in pairwise(blocks))
    if weights > MAX_WEIGHTS:
        raise ConfigError(
            f"architecture {name!r}: up to {weights:,} weights; at most {MAX_WEIGHTS:,}: use fewer channels"
        )
    return Shape(found[1], stages)


def shape_of(name: str) -> Shape | None:
    """Return the shape of an architecture, spelled or built-in; None: it is of no family.

    Raises:
        ConfigError: the name spells widths that can't be those of a network.
    """
    builtin = ARCHITECTURES.get(name)
    if not isinstance(builtin, partial):
        return parse_shape(name)
    kind = (builtin.func, builtin.keywords["block"])
    family = next(family for family, found in FAMILIES.items() if found == kind)
    return Shape(family, builtin.keywords["stages"])
