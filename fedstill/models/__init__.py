"""Architectures of teachers and students: functions from a task to a fresh torch module that returns logits."""

from collections.abc import Callable
from functools import cache

from torch import nn

from fedstill.loading import resolve
from fedstill.models.convnets import ARCHITECTURES as CONVNETS
from fedstill.models.published import PUBLISHED
from fedstill.models.shapes import parse_shape
from fedstill.models.transformers import TRANSFORMERS
from fedstill.tasks import Task

Architecture = Callable[[Task], nn.Module]
ARCHITECTURES: dict[str, Architecture] = {**CONVNETS, **PUBLISHED, **TRANSFORMERS}

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


@cache
def architecture(name: str) -> Architecture:
    """Return the built-in architecture of this name, a shape's, or what `module:object` or `file.py:object` names.

    Raises:
        ConfigError: there is no such architecture.
    """
    shape = parse_shape(name)
    if shape is not None:
        return shape.build
    return resolve("architecture", name, ARCHITECTURES)
