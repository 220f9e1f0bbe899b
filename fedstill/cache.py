"""The label cache of both sides: the newest consensus about every proxy sample, versioned by round.

The server's cache is at version 1 with what the teacher knows before the first round, and at version r + 1 once round r
is finished; a device's is at the version of the last packet that it filled in. What a device lacks is every sample
whose label changed after the version that it acknowledged, so a device that missed rounds catches up with one packet,
and one that lost its disk starts at version 0. Both sides know at which version each label changed, hence when it is
due (`fedstill.expiry`), and compare the checksums of all they hold.
"""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fedstill.errors import StaleCacheError
from fedstill.expiry import in_use
from fedstill.packet import Decoded
from fedstill.soft_labels import Floats, Ints, SoftLabels, soft_labels


@dataclass(frozen=True)
class LabelCache:
    """Consensus soft labels by proxy sample.

    Attributes:
        labels: `[proxy, classes]`, zero where unknown.
        changed: version at which each label last changed, 0: unknown `[proxy]`.
        version: the newest version filled in.
    """

    labels: Floats
    changed: Ints
    version: int

    @staticmethod
    def empty(proxy_size: int, classes: int) -> "LabelCache":
        """Return a cache that knows no label, at version 0."""
        return LabelCache(
            np.zeros((proxy_size, classes), dtype=np.float32), np.zeros(proxy_size, dtype=np.int64), version=0
        )

    @property
    def known(self) -> Ints:
        """Samples with a label, ascending."""
        return np.flatnonzero(self.changed > 0).astype(np.int64)

    def usable(self, round_number: int, duration: int) -> Ints:
        """Samples whose label students learn from in a round, ascending; arguments as in `fedstill.expiry.due`."""
        return np.flatnonzero(in_use(self.changed, round_number, duration)).astype(np.int64)

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of the version, when each label changed, and the labels."""
        head = np.concatenate([[self.version], self.changed]).astype("<i8")
        return zlib.crc32(self.labels.astype("<f4").tobytes(), zlib.crc32(head.tobytes()))

    def filled(self, ids: Ints, labels: Floats, version: int, ages: Ints | None = None) -> "LabelCache":
        """Return the cache at `version`, with new labels `[samples, classes]` for `ids`.

        Args:
            ids: samples `[samples]`.
            labels: their labels `[samples, classes]`.
            version: the version after it.
            ages: how many versions before `version` each label changed `[samples]`; None: all at `version`.
        """
        new_labels, changed = self.labels.copy(), self.changed.copy()
        new_labels[ids] = labels
        changed[ids] = version if ages is None else version - ages
        return replace(self, labels=new_labels, changed=changed, version=version)

    def expect(self, version: int, *, exactly: bool = False) -> None:
        """Make sure that a packet which extends `version` extends this cache.

        It brings every label that changed after that version, so a cache that has gone on from there can take it too:
        that of a device whose last answer was lost. A delta says what has changed since one version alone.

        Raises:
            StaleCacheError: it does not.
        """
        if version > self.version or (exactly and version != self.version):
            reason = f"packet extends cache version {version}, this cache is at version {self.version}"
            raise StaleCacheError(self.version, reason)

    def after(self, packet: Decoded) -> "LabelCache":
        """Return the cache after a downlink packet: one that extends version 0 brings everything, whatever was held.

        Raises:
            StaleCacheError: the packet extends a newer version than this one.
        """
        if packet.base_version:
            self.expect(packet.base_version)
        kept = packet.labels.present
        ages = None if packet.ages is None else packet.ages[kept]
        before = self if packet.base_version else LabelCache.empty(*self.labels.shape)
        return before.filled(packet.labels.ids[kept], packet.labels.probabilities[kept], packet.cache_version, ages)

    def lacking(self, version: int) -> SoftLabels:
        """Return the labels that a cache at `version` lacks, in ascending order of their samples."""
        ids = np.flatnonzero(self.changed > version).astype(np.int64)
        return soft_labels(ids, self.labels[ids])
