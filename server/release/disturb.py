"""Which disturbances a release is measured under, and on which part of the test set."""

from fedstill import disturb
from fedstill.disturb import disturbed

__all__ = ["DISTURBANCES", "SAMPLES", "disturbed", "some"]

SAMPLES = 200
DISTURBANCES = {name: disturb.DISTURBANCES[name] for name in ("noise", "brightness", "blur", "occlusion")}


def some(count: int) -> slice:
    """Return which of `count` test samples are disturbed: about `SAMPLES`, evenly spread."""
    return slice(None, None, max(1, count // SAMPLES))
