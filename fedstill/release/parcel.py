"""A parcel: one file that a run's devices need before its first round, such as the proxy set, signed like a release.

It has the metadata of a release (`fedstill.release.verify`) and no manifest: the class that the metadata name is the
parcel's own, made of its kind and of the digest of its content, so that no parcel passes for another one.
"""

from collections.abc import Mapping
from datetime import datetime

from fedstill.errors import ReleaseError
from fedstill.release.trust import Trust
from fedstill.release.verify import SNAPSHOT, TARGETS, TIMESTAMP, Signed, verify_metadata

CONTENT = "content"
DIGEST_DIGITS = 16  # hexadecimal, of the content's SHA-256


def parcel_name(kind: str, sha256: str) -> str:
    """Return the name of the parcel with this content, of whose SHA-256 16 digits or more are known."""
    return f"{kind}-{sha256[:DIGEST_DIGITS]}"


def is_parcel(signed: Signed) -> bool:
    """Return whether signed metadata are those of a parcel."""
    _, _, digest = signed.device_class.rpartition("-")
    return list(signed.files) == [CONTENT] and signed.files[CONTENT][1][:DIGEST_DIGITS] == digest


def verify_parcel(trust: Trust, metadata: Mapping[str, bytes], name: str, now: datetime | None) -> Signed:
    """Verify the metadata of a parcel.

    Args:
        trust: the trusted root.
        metadata: content of the metadata files by name.
        name: which parcel it has to be.
        now: to check expiry with; None: expiry does not matter.

    Raises:
        ReleaseError: it is not to be trusted, or is something else.
    """
    signed = verify_metadata(trust, metadata[TIMESTAMP], metadata[SNAPSHOT], metadata[TARGETS], now)
    if signed.device_class != name or not is_parcel(signed):
        raise ReleaseError(f"{name}: the signed metadata are of {signed.device_class}, or of no parcel")
    return signed
