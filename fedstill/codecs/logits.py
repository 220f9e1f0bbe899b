"""Centred logits as float16: log-probabilities minus their mean, n * C * 16 bits.

Logits of unknown scale let one over-confident net rule a mean; these are log-probabilities, so their scale is that of
the softmax, and they sum to zero exactly: on a grid of 1/64, which float16 holds without rounding up to 32, no logit
more than 16 below the largest. What is not centred, off the grid or out of bounds was not made here and is refused.
Decoded they are probabilities again.
"""

import numpy as np

from fedstill.codecs.bits import Coder
from fedstill.codecs.interface import Codes
from fedstill.codecs.planes import code_planes
from fedstill.errors import PacketError
from fedstill.soft_labels import Bools, Floats

_STEPS = 64  # per unit: the ratio of two probabilities is off by 3 % at most
_SPREAD = 16 * _STEPS  # e^-16, about 1e-7, is the smallest ratio of two probabilities


class CentredLogits:
    """Multiples of 1/64 that sum to zero.

    Args:
        classes: C, width of a soft label.
    """

    kind = np.dtype("<i2")

    def __init__(self, classes: int) -> None:
        self.width = classes

    def quantize(self, rows: Floats) -> Codes:
        """Take logarithms, round them to the grid, and centre them on it.

        The remainder of the mean is taken from the largest logits, so that the spread never grows and centred logits
        come out as they went in.
        """
        logs = np.log(np.maximum(rows.astype(np.float64), 1e-30))
        below = np.rint((logs - logs.max(axis=1, keepdims=True)) * _STEPS)
        units = np.maximum(below, -_SPREAD).astype(np.int64)
        units -= units.sum(axis=1, keepdims=True) // self.width
        over = units.sum(axis=1, keepdims=True)
        ranks = np.argsort(np.argsort(-units, axis=1, kind="stable"), axis=1, kind="stable")
        codes: Codes = (units - (ranks < over)).astype(self.kind)
        return codes

    def restore(self, codes: Codes) -> Floats:
        """Return the softmax."""
        logits = codes.astype(np.float64) / _STEPS
        odds = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(codes) else logits
        rows: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return rows

    def check(self, codes: Codes) -> None:
        """Refuse logits that are not centred or too far apart."""
        wide = codes.astype(np.int64)
        if (wide.sum(axis=1) != 0).any():
            raise PacketError("logits are not centred")
        if len(wide) and (wide.max(axis=1) - wide.min(axis=1)).max() > _SPREAD:
            raise PacketError(f"logits are more than {_SPREAD // _STEPS} apart")

    def plain_bytes(self, samples: int) -> int:
        """Return n * C * 2."""
        return samples * self.width * 2

    def pack(self, codes: Codes) -> bytes:
        """Write little endian float16."""
        return (codes / np.float32(_STEPS)).astype("<f2").tobytes()

    def unpack(self, payload: bytes, samples: int) -> Codes:
        """Read what `pack` wrote."""
        if len(payload) != self.plain_bytes(samples):
            raise PacketError(f"payload has {len(payload)} bytes, {self.plain_bytes(samples)} expected")
        values = np.frombuffer(payload, dtype="<f2").reshape(samples, self.width)
        if not np.isfinite(values).all() or (np.abs(values) > _SPREAD / _STEPS).any():
            raise PacketError("logits are not finite or too large")
        steps = values.astype(np.float32) * _STEPS
        codes: Codes = steps.astype(self.kind)
        if (codes != steps).any():
            raise PacketError(f"logits are no multiples of 1/{_STEPS}")
        return codes

    def code(self, coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
        """Code the bytes of the steps above the lowest value there is."""
        raised, before = ((part.astype(np.int64) + _SPREAD).astype("<u2") for part in (codes, base))
        found = code_planes(coder, raised, before, known).astype(np.int64) - _SPREAD
        if (np.abs(found) > _SPREAD).any():
            raise PacketError("logits are too large")
        result: Codes = found.astype(self.kind)
        return result
