"""Files of tensors, and caches and bases as tensors: the form in which state files and checkpoints hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedstill.cache import LabelCache
from fedstill.codecs import codec
from fedstill.delta import Base
from fedstill.errors import DataError

BASE = ("encoding", "version", "codes", "known")  # what `store_base` returns


def load_tensors(path: Path) -> Any:
    """Return what `torch.save` wrote to a file; nothing of it is run.

    Raises:
        DataError: the file is not there, or damaged.
    """
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # torch raises what the damage leads to
        reason = getattr(error, "strerror", None) or error  # without the path once more
        raise DataError(f"{path}: damaged or missing: {reason}".splitlines()[0]) from error


def store_cache(cache: LabelCache) -> dict[str, Any]:
    """Return a cache as tensors."""
    return {
        "labels": torch.from_numpy(cache.labels),
        "changed": torch.from_numpy(cache.changed),
        "version": cache.version,
    }


def load_cache(stored: Mapping[str, Any]) -> LabelCache:
    """Return the cache that `store_cache` made tensors of."""
    return LabelCache(stored["labels"].numpy(), stored["changed"].numpy(), stored["version"])


def store_base(base: Base) -> dict[str, Any]:
    """Return a base as tensors: codes as their bytes, as not every integer type is a tensor's."""
    return {
        "encoding": base.encoding,
        "version": base.version,
        "codes": torch.from_numpy(np.ascontiguousarray(base.codes).view(np.uint8)),
        "known": torch.from_numpy(base.known),
    }


def load_base(stored: Mapping[str, Any], classes: int) -> Base:
    """Return the base that `store_base` made tensors of, for soft labels of that many classes."""
    codes = stored["codes"].numpy().view(codec(stored["encoding"], classes).kind)
    return Base(stored["encoding"], stored["version"], codes, stored["known"].numpy())
