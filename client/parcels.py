"""What a run's devices need before its first round, fetched once: signed, resumed where it broke off, and kept.

A parcel lies in a folder of its own with the metadata that vouch for it. They are verified again under the device's
root whenever the agent takes the parcel out, expiry aside, and its content is compared with them.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.updates.delivery import Access, Server
from client.updates.download import complete, prepare
from fedstill.errors import DataError, FedstillError, ReleaseError
from fedstill.files import keep_newest
from fedstill.release.parcel import CONTENT, parcel_name, verify_parcel
from fedstill.release.trust import Trust
from fedstill.release.verify import METADATA, digest
from protos.delivery_pb2 import NewestRequest

log = logging.getLogger("fedstill")
KEPT = 4
"""Parcels on the disk, the newest: a proxy set and a backbone of each of two runs."""
ROOTS = 100  # newer roots that one answer may bring


def _nothing(name: str) -> None:
    pass


@dataclass(frozen=True)
class Parcels:
    """A device's parcels.

    Attributes:
        folder: where they lie.
        root: the file of the root that this device trusts.
        access: how to reach the delivery service.
        device: what this device is called there.
        step: called at each step of a download with its name.
    """

    folder: Path
    root: Path
    access: Access
    device: str
    step: Callable[[str], None] = _nothing

    def path(self, kind: str, sha256: str) -> Path:
        """Return the file of a parcel, fetched unless it is here.

        Args:
            kind: what it is.
            sha256: of its content, or so many of the first digits as are known, at least 16.

        Raises:
            DataError: it can't be had now, or what is offered is not to be trusted.
        """
        place = self.folder / parcel_name(kind, sha256)
        try:
            trust = Trust.load(self.root.read_bytes(), str(self.root))
            if not self._is_here(place, trust):
                self._fetch(place, trust)
                keep_newest(self.folder, place, KEPT)
            return place / CONTENT
        except OSError as error:
            raise DataError(f"{error.filename or place}: {error.strerror}") from error
        except FedstillError as error:
            raise DataError(f"{place.name}: {error}") from error

    def _is_here(self, place: Path, trust: Trust) -> bool:
        if not (place / CONTENT).is_file():
            return False
        try:
            metadata = {name: (place / name).read_bytes() for name in METADATA}
            signed = verify_parcel(trust, metadata, place.name, None)
            if digest(place / CONTENT) == signed.files[CONTENT]:
                return True
            reason = "its content changed on the disk"
        except (ReleaseError, FileNotFoundError) as error:
            reason = str(error)
        log.warning("%s is fetched anew: %s", place, reason)
        shutil.rmtree(place)
        return False

    def _fetch(self, place: Path, trust: Trust) -> None:
        with self.access.channel() as channel:
            server = Server(channel, self.access.server)
            reply = server.newest(
                NewestRequest(device_class=place.name, device_id=self.device, root_version=trust.version)
            )
            if not reply.granted:
                raise DataError(f"the server does not offer it: {reply.reason[:200]!r}")
            for content in reply.roots[:ROOTS]:
                trust = trust.follow(content)
            metadata = dict(zip(METADATA, (reply.timestamp, reply.snapshot, reply.targets), strict=True))
            signed = verify_parcel(trust, metadata, place.name, datetime.now(UTC))
            prepare(place, metadata, signed)
            complete(place, signed, server, self.step)
        log.info("%s: %d bytes fetched", place.name, signed.files[CONTENT][0])
