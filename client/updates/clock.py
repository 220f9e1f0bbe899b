"""What time it is, on boards that may not know: a clock that lies before what is known already is not believed.

Known are the day on which this code was released and the latest time at which metadata were verified. Without a clock,
expiry is still checked against the later of the two, and only metadata with a newer timestamp than the last one seen
are taken: the signed timestamp is then the evidence that time went on. A device that has never verified any waits.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BUILT = datetime(2026, 11, 1, tzinfo=UTC)  # moves forward with each version of Fedstill
SLACK = timedelta(hours=1)  # a clock may be set back by so much: network time corrects drifting clocks


@dataclass(frozen=True)
class Moment:
    """What is known of the time.

    Attributes:
        time: not before this; to check expiry with.
        clock: whether a clock says so.
    """

    time: datetime
    clock: bool


def moment(now: datetime, seen: float) -> Moment:
    """Return what is known of the time.

    Args:
        now: what the clock says.
        seen: Unix seconds of the latest time that was believed; 0: none.
    """
    earliest = max(BUILT, datetime.fromtimestamp(seen, UTC))
    return Moment(max(now, earliest), True) if now >= earliest - SLACK else Moment(earliest, False)
