"""What a device knows, in one file: which release runs, which one to go back to, what it will never accept again.

A release lies in `slots/<version>/` and nothing there counts until `state.json` names it. So the switch is one rename
of one file: whoever is killed, at whatever moment, leaves the state before or the state after. A slot that the state
does not name is a download under way or rubbish.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedstill.config import Settings

FAILED = 50  # remembered failures; versions only grow, so old ones are not offered again


class Installed(Settings):
    """A release that ran or runs."""

    version: int = Field(ge=1)
    file: str
    """The model file that runs: the faster one on this device."""
    sha256: Mapping[str, str]
    """Of that file and of the manifest, when they were verified: a disk can go bad later."""
    classes: Mapping[str, int] = {}
    """How often it predicted each label while it was tested here; empty: too seldom to tell."""


class Failed(Settings):
    """A version that is not tried again."""

    version: int
    reason: str
    onnxruntime: str
    """The runtime that it failed with: another one may try again."""


class State(Settings):
    """Everything that a device must not forget."""

    format_version: Literal[1] = 1
    device_id: str
    """Drawn once; the rollout's percentage is drawn from it."""
    device_class: str | None = None
    """What the versions below are counted for; None: no update was asked for yet."""
    running: Installed | None = None
    watched: bool = False
    """Whether `running` is on trial: it has not been kept for good yet."""
    starts: int = 0
    """How often somebody began to watch it: a model that takes the whole device down is caught by this."""
    good: tuple[Installed, ...] = ()
    """Releases to go back to, the last good one first."""
    highest_release: int = 0
    """The newest version that signed metadata named: anything older is a replay."""
    highest_timestamp: int = 0
    """Likewise of the timestamp."""
    seen: float = 0
    """Unix seconds: the latest time at which metadata were verified by a clock that could be believed."""
    evidence: int = 0
    """The timestamp that was taken without a clock, because it was newer than the one before."""
    failed: tuple[Failed, ...] = ()
    sequence: int = 0
    """Of the last report."""

    def failure(self, version: int, onnxruntime: str) -> str | None:
        """Return why a version failed with this runtime, if it did."""
        for failed in self.failed:
            if (failed.version, failed.onnxruntime) == (version, onnxruntime):
                return failed.reason
        return None

    def switched(self, to: Installed) -> "State":
        """Return the state in which `to` runs and is watched; what ran before, committed, is the last good one."""
        assert not self.watched
        good = (self.running, *self.good) if self.running else self.good
        return self.model_copy(update={"running": to, "watched": True, "starts": 0, "good": good[:2]})

    def started(self, version: int) -> "State":
        """Return the state in which one more watch of this version has begun."""
        return self.model_copy(update={"starts": self.starts + 1}) if self.watches(version) else self

    def stopped(self, version: int) -> "State":
        """Return the state in which a watch of this version ended on purpose: that says nothing against it."""
        return self.model_copy(update={"starts": max(self.starts - 1, 0)}) if self.watches(version) else self

    def committed(self, version: int, classes: Mapping[str, int]) -> "State":
        """Return the state in which a watched version is kept; unchanged if another one is watched.

        Args:
            version: what is kept.
            classes: how often it predicted each label; empty: too seldom to tell.
        """
        if not self.watches(version):
            return self
        assert self.running is not None
        kept = self.running.model_copy(update={"classes": dict(classes)})
        return self.model_copy(update={"running": kept, "watched": False, "good": self.good[:1]})

    def learned(self, version: int, classes: Mapping[str, int]) -> "State":
        """Return the state in which a kept release has its predicted labels counted; unchanged if another one runs."""
        if self.running is None or self.running.version != version or self.watched:
            return self
        return self.model_copy(update={"running": self.running.model_copy(update={"classes": dict(classes)})})

    def rolled_back(self, failure: Failed) -> "State":
        """Return the state in which the last good release runs again; unchanged if another version runs.

        Without a last good release nothing runs: a model that failed never goes on.
        """
        if self.running is None or self.running.version != failure.version:
            return self
        before = {"running": self.good[0] if self.good else None, "watched": False, "good": self.good[1:]}
        return self.refused(failure).model_copy(update=before)

    def refused(self, failure: Failed) -> "State":
        """Return the state in which a version is not tried again."""
        others = tuple(failed for failed in self.failed if failed.version != failure.version)
        return self.model_copy(update={"failed": (*others, failure)[-FAILED:]})

    def watches(self, version: int) -> bool:
        """Return whether this version is on trial."""
        return self.watched and self.running is not None and self.running.version == version

    def named(self) -> set[int]:
        """Return the versions whose slots must stay."""
        return {installed.version for installed in (self.running, *self.good) if installed is not None}
