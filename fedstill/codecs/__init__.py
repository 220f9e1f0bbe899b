"""Codecs of soft labels, one idea a file; `codec` finds them by the name that settings use."""

import re
from functools import lru_cache

from fedstill.codecs.floats import Probabilities
from fedstill.codecs.interface import Codec, Codes
from fedstill.codecs.logits import CentredLogits
from fedstill.codecs.simplex import Simplex, largest_remainder
from fedstill.codecs.top_k import TopK
from fedstill.errors import ConfigError

NAMES = "float32, float16, logits16, simplex1 to simplex8, top1 to top99"
_NAME = re.compile(r"(float32|float16|logits16|simplex(?P<bits>[1-8])|top(?P<kept>[1-9][0-9]?))")


def is_codec(name: str) -> bool:
    """Tell whether a name is one of `NAMES`."""
    return _NAME.fullmatch(name) is not None


@lru_cache(maxsize=64)
def codec(name: str, classes: int) -> Codec:
    """Return the codec of that name for soft labels of that many classes.

    Raises:
        ConfigError: there is none, or it keeps no fewer classes than there are.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(f"unknown encoding {name!r}; there are {NAMES}")
    if found["bits"]:
        return Simplex(classes, int(found["bits"]))
    if found["kept"]:
        if int(found["kept"]) >= classes:
            raise ConfigError(
                f"encoding {name!r} needs more classes than the {classes} of this task; top{classes - 1} keeps most"
            )
        return TopK(classes, int(found["kept"]))
    if name == "logits16":
        return CentredLogits(classes)
    return Probabilities(classes, 4 if name == "float32" else 2)


__all__ = ["NAMES", "Codec", "Codes", "codec", "is_codec", "largest_remainder"]
