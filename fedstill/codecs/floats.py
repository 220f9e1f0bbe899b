"""Probabilities as floats of IEEE 754: n * C * 32 or 16 bits."""

from typing import Any

import numpy as np

from fedstill.codecs.bits import Coder
from fedstill.codecs.interface import Codes
from fedstill.codecs.planes import code_planes
from fedstill.errors import PacketError
from fedstill.soft_labels import Bools, Floats

_SUM_TOLERANCE = {4: 1e-3, 2: 2e-3}


class Probabilities:
    """The bits of floats.

    Args:
        classes: C, width of a soft label.
        size: bytes of a float, 4 or 2.
    """

    def __init__(self, classes: int, size: int) -> None:
        self.width = classes
        self.kind: np.dtype[Any] = np.dtype(f"<u{size}")
        self._float: np.dtype[Any] = np.dtype(f"<f{size}")

    def quantize(self, rows: Floats) -> Codes:
        """Round to the nearest float."""
        return rows.astype(self._float).view(self.kind)

    def restore(self, codes: Codes) -> Floats:
        """Return the floats as they were sent: encoding them again gives the same bytes."""
        return codes.view(self._float).astype(np.float32)

    def check(self, codes: Codes) -> None:
        """Refuse what is not finite, negative, or does not sum to one."""
        values = self.restore(codes)
        if not np.isfinite(values).all():
            raise PacketError("probabilities are not finite")
        if (values < 0).any():
            raise PacketError("probabilities are negative")
        if (np.abs(values.sum(axis=1, dtype=np.float64) - 1) > _SUM_TOLERANCE[self.kind.itemsize]).any():
            raise PacketError("probabilities do not sum to one")

    def plain_bytes(self, samples: int) -> int:
        """Return n * C * 4 or n * C * 2."""
        return samples * self.width * self.kind.itemsize

    def pack(self, codes: Codes) -> bytes:
        """Write little endian floats."""
        return codes.tobytes()

    def unpack(self, payload: bytes, samples: int) -> Codes:
        """Read what `pack` wrote."""
        if len(payload) != self.plain_bytes(samples):
            raise PacketError(f"payload has {len(payload)} bytes, {self.plain_bytes(samples)} expected")
        return np.frombuffer(payload, dtype=self.kind).reshape(samples, self.width)

    def code(self, coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
        """Code the floats' bytes."""
        return code_planes(coder, codes, base, known)
