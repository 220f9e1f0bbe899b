"""What a codec is: soft labels to integers, to bytes and back, with the rules that untrusted bytes must pass."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedstill.codecs.bits import Coder
from fedstill.soft_labels import Bools, Floats

Codes = npt.NDArray[Any]  # integers `[samples, width]`, in the codec's own type


class Codec(Protocol):
    """One way to write soft labels.

    `quantize` is where precision is lost; everything after it is exact. Decoded rows quantize to codes that decode to
    the same rows, so a label that was decoded once may be encoded again, by whoever holds it, without drifting.
    """

    @property
    def width(self) -> int:
        """Integers that a sample takes."""

    @property
    def kind(self) -> np.dtype[Any]:
        """Their smallest numpy type."""

    def quantize(self, rows: Floats) -> Codes:
        """Return the codes of rows on the simplex `[samples, classes]`."""

    def restore(self, codes: Codes) -> Floats:
        """Return the rows that codes stand for `[samples, classes]`."""

    def check(self, codes: Codes) -> None:
        """Refuse codes that no `quantize` returns.

        Raises:
            PacketError: with the reason.
        """

    def plain_bytes(self, samples: int) -> int:
        """Return the largest size of `pack` for that many samples, in bytes."""

    def pack(self, codes: Codes) -> bytes:
        """Write codes plainly: the size does not depend on what they say."""

    def unpack(self, payload: bytes, samples: int) -> Codes:
        """Read what `pack` wrote; the size is checked before anything is allocated.

        Raises:
            PacketError: the payload is not one of that many samples.
        """

    def code(self, coder: Coder, codes: Codes, base: Codes, known: Bools) -> Codes:
        """Pass codes through an adaptive coder, sample by sample, and return them as the coder has them.

        Args:
            coder: writes the codes, or ignores them and reads others.
            codes: what to write, anything of this shape when reading `[samples, width]`.
            base: codes that both sides hold of the same samples `[samples, width]`.
            known: where `base` says something; elsewhere a sample is coded in full `[samples]`.

        Raises:
            PacketError: what is read is no code.
        """
