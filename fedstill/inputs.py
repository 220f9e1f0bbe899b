"""A model's inputs: images in normalized blocks, kept where one student after another predicts the same ones.

A round asks all virtual devices of a process about the same proxy samples. For a small dense student, to pick and
normalize them costs a quarter of predicting them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

LARGEST = 16 << 20
"""Bytes of blocks from which on they are not kept: the students of large inputs spend their time elsewhere."""


@dataclass(frozen=True)
class _Kept:
    key: object
    blocks: Sequence[Tensor]
    versions: Sequence[int]

    def unspoiled(self) -> bool:
        """Say whether no model has written into its input: torch counts the writes to a tensor."""
        return all(block._version == version for block, version in zip(self.blocks, self.versions, strict=True))


_last: _Kept | None = None


def kept_blocks(key: object, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """Return what `make` made for the same key before, if that was the last one kept in this process, or makes now.

    Args:
        key: of the images and their normalization.
        make: returns normalized blocks `[batch, channels, height, width]`.
    """
    global _last
    if _last is not None and _last.key == key and _last.unspoiled():
        return _last.blocks
    blocks = make()
    small = sum(block.nbytes for block in blocks) <= LARGEST
    _last = _Kept(key, blocks, [block._version for block in blocks]) if small else None
    return blocks
