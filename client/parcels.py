"""What a run's devices need before its first round, fetched once: signed, resumed where it broke off, and kept.

A parcel lies in a folder of its own with the metadata that vouch for it. They are verified again under the device's
root whenever the agent takes the parcel out, expiry aside, and its content is compared with them. The roots that came
after the device's own, `<version>.root.json`, lie beside the parcels: the device's own is not the agent's to write.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.updates.delivery import Access, Server
from client.updates.download import complete, prepare
from fedstill.errors import DataError, FedstillError, ReleaseError
from fedstill.files import keep_newest, write_atomic
from fedstill.release.parcel import CONTENT, parcel_name, verify_parcel
from fedstill.release.trust import Trust
from fedstill.release.verify import METADATA, TARGETS, digest
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
            trust = self._trust()
            if not self._is_here(place, trust):
                self._fetch(place, trust)
                keep_newest(self.folder, place, KEPT)
            return place / CONTENT
        except OSError as error:
            raise DataError(f"{error.filename or place}: {error.strerror}") from error
        except FedstillError as error:
            raise DataError(f"{place.name}: {error}") from error

    def _root(self, version: int) -> Path:
        return self.folder / f"{version}.root.json"

    def _trust(self) -> Trust:
        """Return trust in the newest root here that the device's own one leads to, each signed by the one before."""
        trust = Trust.load(self.root.read_bytes(), str(self.root))
        while (path := self._root(trust.version + 1)).exists():
            try:
                trust = trust.follow(path.read_bytes())
            except (OSError, ReleaseError) as error:  # the server has it: it is written anew with the next answer
                log.warning("%s is passed over: %s", path, error)
                break
        return trust

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
        log.warning("%s: the server is asked anew: %s", place, reason)
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
                write_atomic(self._root(trust.version), trust.content)
            metadata = dict(zip(METADATA, (reply.timestamp, reply.snapshot, reply.targets), strict=True))
            signed = verify_parcel(trust, metadata, place.name, datetime.now(UTC))
            content_file = place / CONTENT
            whole = content_file.is_file() and digest(content_file) == signed.files[CONTENT]
            if whole:  # it was signed anew: `prepare` keeps what the targets that lie there are about
                write_atomic(place / TARGETS, metadata[TARGETS])
            else:
                content_file.unlink(missing_ok=True)
            prepare(place, metadata, signed)
            complete(place, signed, server, self.step)
        log.info("%s: %d bytes %s", place.name, signed.files[CONTENT][0], "signed anew" if whole else "fetched")
