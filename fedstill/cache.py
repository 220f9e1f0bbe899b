"""The label cache of both sides: the newest consensus about every proxy sample, versioned by round.

The server's cache is at version 1 with what the teacher knows before the first round, and at version r + 1 once round r
is finished; a device's is at the version of the last packet that it filled in. What a device lacks is every sample
whose label changed after the version that it acknowledged, so a device that missed rounds catches up with one packet,
and one that lost its disk starts at version 0.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedstill.errors import StaleCacheError
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

    def filled(self, ids: Ints, labels: Floats, version: int) -> "LabelCache":
        """Return the cache at `version`, with new labels `[samples, classes]` for `ids`."""
        new_labels, changed = self.labels.copy(), self.changed.copy()
        new_labels[ids] = labels
        changed[ids] = version
        return replace(self, labels=new_labels, changed=changed, version=version)

    def after(self, packet: Decoded) -> "LabelCache":
        """Return the cache after a downlink packet: one that extends version 0 brings everything, whatever was held.

        Raises:
            StaleCacheError: the packet extends another version than this one.
        """
        if packet.base_version not in (0, self.version):
            raise StaleCacheError(self.version, packet.base_version)
        kept = packet.labels.present
        before = self if packet.base_version else LabelCache.empty(*self.labels.shape)
        return before.filled(packet.labels.ids[kept], packet.labels.probabilities[kept], packet.cache_version)

    def lacking(self, version: int) -> SoftLabels:
        """Return the labels that a cache at `version` lacks, in ascending order of their samples."""
        ids = np.flatnonzero(self.changed > version).astype(np.int64)
        return soft_labels(ids, self.labels[ids])
