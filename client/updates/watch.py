"""The watch over a new release: when it is kept, and when the device goes back.

A new release is on trial until it has answered so many predictions, or for so long, without a crash or a hang. Then the
labels that it predicted are compared with those that the last good release predicted on this device: the drift

    d = 1/2 sum_y |p(y) - q(y)|,    in [0, 1],

is the total variation distance of their shares p and q. Above the limit the new release is not kept: it sees the same
world and says something else. Who watches is the prediction server, on the requests that it gets; where none is at
work, the updater does (`client.updates.rehearsal`).
"""

from collections import Counter
from collections.abc import Mapping

from pydantic import Field

from client.predict.student import runtime_version
from client.updates.home import Home
from client.updates.state import Failed
from fedstill.config import Settings


class Rules(Settings):
    """When a new release is kept."""

    predictions: int = Field(default=200, ge=1)
    """Answers after which it is judged."""
    seconds: float = Field(default=600, gt=0)
    """Time after which it is judged with fewer."""
    drift: float = Field(default=0.5, gt=0, le=1)
    """The largest drift of a release that is kept."""
    least: int = Field(default=100, ge=1)
    """Predictions below which shares say nothing about drift."""
    starts: int = Field(default=3, ge=1)
    """How often a watch may begin: whoever watched ended with the model, or the whole device did."""


def drift(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return the total variation distance of two sets of predicted labels, in [0, 1].

    Args:
        before: how often each label was predicted; not all 0.
        now: likewise.
    """
    sums = sum(before.values()), sum(now.values())
    labels = {*before, *now}
    return 0.5 * sum(abs(before.get(label, 0) / sums[0] - now.get(label, 0) / sums[1]) for label in labels)


def verdict(rules: Rules, before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> str | None:
    """Return "" when a watched release is to be kept, the reason when it is not, None when it is too early to tell.

    Args:
        rules: when.
        before: how often the last good release predicted each label; empty: nobody knows.
        now: how often this one did.
        seconds: since it began.
    """
    answered = sum(now.values())
    if answered < rules.predictions and seconds < rules.seconds:
        return None
    if answered >= rules.least and sum(before.values()) >= rules.least:
        found = drift(before, now)
        if found > rules.drift:
            return f"its predictions drift by {found:.2f} from those of the last good release, at most {rules.drift:g}"
    return ""


def begin(home: Home, version: int, rules: Rules) -> str | None:
    """Count the start of a watch; return the reason not to: too many watches of it ended with their process."""
    starts = home.change(lambda state: state.started(version)).starts
    if starts > rules.starts:
        return f"whoever watched it ended before it could be kept, {rules.starts} times"
    return None


def give_up(home: Home, version: int, reason: str) -> None:
    """Go back to the last good release, and remember why."""
    failure = Failed(version=version, reason=reason, onnxruntime=runtime_version())
    home.change(lambda state: state.rolled_back(failure))


def judged(labels: Counter[str], rules: Rules) -> dict[str, int]:
    """Return predicted labels if there are enough of them to compare others with, else nothing."""
    return dict(labels) if labels.total() >= rules.least else {}
