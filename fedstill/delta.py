"""What a delta refers to: the codes that both sides hold of proxy samples.

Deltas against the last acknowledged labels as in CFD (Sattler, Marban, Rischke and Samek 2022, arXiv 2012.00632), for
any subset of samples: those that the base knows are coded as what is new about them, the others in full. Uplink, the
base is what the device's acknowledged packets said last about each sample; downlink, what the device's label cache
holds.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np

from fedstill.codecs import Codes, codec
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels


def _settled(encoding: str, rows: Floats) -> Codes:
    """Return codes that are the same for rows as they were and as they were decoded: both sides compute them."""
    own = codec(encoding, rows.shape[1])
    return own.quantize(own.restore(own.quantize(rows)))


@dataclass(frozen=True)
class Base:
    """Codes by proxy sample.

    Attributes:
        encoding: name of their codec.
        version: the round of the device's last packet in it (uplink) or the cache version (downlink); at least 1.
        codes: `[proxy, width]`, zero where unknown.
        known: where there are codes `[proxy]`.
    """

    encoding: str
    version: int
    codes: Codes
    known: Bools

    @staticmethod
    def of(encoding: str, labels: Floats, known: Bools, version: int) -> "Base":
        """Return the base of decoded labels.

        Args:
            encoding: name of the codec.
            labels: rows on the simplex where known `[proxy, classes]`.
            known: where they are `[proxy]`.
            version: of what the labels are part of.
        """
        own = codec(encoding, labels.shape[1])
        codes = np.zeros((len(labels), own.width), dtype=own.kind)
        codes[known] = _settled(encoding, labels[known])
        return Base(encoding, version, codes, known)

    @staticmethod
    def nothing(encoding: str, proxy_size: int, classes: int) -> "Base":
        """Return a base that knows no sample, at version 0, for a first packet to extend."""
        labels = np.zeros((proxy_size, classes), dtype=np.float32)
        return Base.of(encoding, labels, np.zeros(proxy_size, dtype=np.bool_), version=0)

    def extended(self, labels: SoftLabels, version: int) -> "Base":
        """Return the base after a packet with these labels; those that were abstained about stay as they are."""
        codes, known = self.codes.copy(), self.known.copy()
        ids = labels.ids[labels.present]
        codes[ids] = _settled(self.encoding, labels.probabilities[labels.present])
        known[ids] = True
        return replace(self, version=version, codes=codes, known=known)

    def checksum(self, ids: Ints) -> int:
        """Return the CRC-32 of what is held of some samples."""
        held = zlib.crc32(np.packbits(self.known[ids]).tobytes())
        return zlib.crc32(np.ascontiguousarray(self.codes[ids][self.known[ids]]).tobytes(), held)
