"""Staged rollouts: which version of a class a device gets. Pure decisions about a frozen state.

As long as nobody has staged a class, its newest release goes to all devices. From the first staging on, a release goes
to nobody until it is the candidate: then to the named groups and to a percentage of all devices, drawn by a stable hash
of version and device id, so that 20 % contain those of 10 %, and another version begins with other devices. All others
get the version that was promoted last.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from fedstill.config import Settings, parse
from fedstill.errors import ConfigError
from fedstill.release.verify import NAME

EVERYBODY = "everybody"
KEPT = 16  # promoted and withdrawn versions that are remembered


class Group(Settings):
    """Named devices that get a candidate first."""

    devices: tuple[str, ...] = Field(min_length=1, max_length=10_000)
    """Their ids."""
    threshold: float = Field(default=0.1, ge=0, lt=1)
    """Share of them that may refuse the candidate or roll it back before the rollout pauses by itself."""


class Rollout(Settings):
    """What is staged for a device class."""

    promoted: tuple[int, ...] = ()
    """Versions that went to all devices, in that order; the last one that is not withdrawn still does."""
    candidate: int = 0
    """Version that is being rolled out; 0: none."""
    percent: float = Field(default=0, ge=0, le=100)
    """Share of all devices that get the candidate."""
    threshold: float = Field(default=0.1, ge=0, lt=1)
    """Share of the devices that told about the candidate which may refuse it or roll it back before it pauses."""
    groups: dict[str, Group] = Field(default_factory=dict)
    """By name."""
    paused: str = ""
    """Why nobody else gets the candidate; empty: it is not paused."""
    resumed_at: float = 0
    """Seconds since the epoch: failures told before count no more."""
    withdrawn: tuple[int, ...] = ()
    """Versions that nobody gets any more."""

    @property
    def current(self) -> int:
        """The version that all devices get; 0: none."""
        return next((version for version in reversed(self.promoted) if version not in self.withdrawn), 0)

    @property
    def active(self) -> bool:
        """Whether anybody is to get the candidate now."""
        return bool(self.candidate and not self.paused and (self.percent or self.groups))

    def includes(self, device: str) -> bool:
        """Return whether a device gets the candidate now."""
        if not self.active:
            return False
        in_group = any(device in group.devices for group in self.groups.values())
        return in_group or share_of(device, self.candidate) < self.percent


def share_of(device: str, version: int) -> float:
    """Return the percentage from which on a device gets a version, in [0, 100)."""
    digest = hashlib.sha256(f"{version}:{device}".encode()).digest()
    return 100 * int.from_bytes(digest[:7], "big") / 2**56


def version_for(rollout: Rollout | None, available: Sequence[int], device: str, installed: int) -> int:
    """Return the version that a device should run; 0: none.

    Args:
        rollout: what is staged; None: nothing ever was.
        available: versions in the store.
        device: its id.
        installed: what it runs. It keeps that, paused or not, until it gets a newer one; devices take no older version
            for new, so only a withdrawn one gives way to it.
    """
    if rollout is None:
        return max(available, default=0)
    granted = rollout.candidate if rollout.includes(device) else rollout.current
    keeps = installed in available and installed not in rollout.withdrawn
    return max(granted, installed) if keeps else granted


def taken_back(rollout: Rollout | None, version: int) -> str:
    """Return why devices are not to go on installing a version that they were granted; empty: they may."""
    if rollout is not None and version in rollout.withdrawn:
        return "withdrawn"
    if rollout is not None and version == rollout.candidate and rollout.paused:
        return f"paused ({rollout.paused})"
    return ""


def kept_back(rollout: Rollout | None, version: int) -> str:
    """Return why a version is given to nobody now; empty: it is given to some."""
    if rollout is None or version == rollout.current or (version == rollout.candidate and rollout.active):
        return ""
    return taken_back(rollout, version) or "not granted to any device"


@dataclass(frozen=True)
class Outcomes:
    """Latest outcome of each device about one version.

    Attributes:
        failed: ids of devices that refused it or rolled it back.
        told: ids of all devices that told any outcome.
    """

    failed: frozenset[str]
    told: frozenset[str]


FEWEST = 10  # devices that a share of all devices is about at least: one early failure alone is no 100 %


def reason_to_pause(rollout: Rollout, outcomes: Outcomes) -> str:
    """Return why a rollout has to pause; empty: it need not.

    A group's threshold is a share of all its devices, the general one of the devices that told an outcome.
    """
    groups = [
        (f"group {name}", len(outcomes.failed & set(group.devices)), len(group.devices), group.threshold)
        for name, group in rollout.groups.items()
    ]
    everybody = (EVERYBODY, len(outcomes.failed), max(FEWEST, len(outcomes.told)), rollout.threshold)
    for name, failed, of, threshold in (*groups, everybody):
        if failed > threshold * of:
            return f"{name}: {failed} of {of} devices refused or rolled back version {rollout.candidate}"
    return ""


def begun(available: Iterable[int]) -> Rollout:
    """Return the state of a class that nobody has staged yet: whatever is in the store went to all devices."""
    return Rollout(promoted=tuple(sorted(available))[-KEPT:])


def stage(rollout: Rollout, available: Sequence[int], percent: float, version: int, threshold: float | None) -> Rollout:
    """Roll a version out to a percentage of the devices.

    Args:
        rollout: the state.
        available: versions in the store.
        percent: of all devices.
        version: which; 0: the candidate, or the newest version if there is none.
        threshold: of failures among all devices; None: as it was.

    Raises:
        ConfigError: there is no such version, or it was withdrawn.
    """
    wanted = version or rollout.candidate or max(available, default=0)
    _available(wanted, available)
    if wanted in rollout.withdrawn:
        raise ConfigError(f"version {wanted} was withdrawn; sign and publish it again as a newer one")
    changes: dict[str, object] = {"candidate": wanted, "percent": percent}
    if wanted != rollout.candidate:
        # A version that went to all devices until now is a candidate from here on.
        promoted = tuple(other for other in rollout.promoted if other != wanted)
        changes |= {"promoted": promoted, "paused": "", "resumed_at": 0.0}
    if threshold is not None:
        changes["threshold"] = threshold
    return changed(rollout, changes)


def promote(rollout: Rollout, available: Sequence[int], version: int) -> Rollout:
    """Give a version to all devices.

    Args:
        rollout: the state.
        available: versions in the store.
        version: which; 0: the candidate, or without one what all devices get already: later releases wait from then on.

    Raises:
        ConfigError: there is no such version, or it was withdrawn.
    """
    wanted = version or rollout.candidate or rollout.current
    _available(wanted, available)
    if wanted in rollout.withdrawn:
        raise ConfigError(f"version {wanted} was withdrawn; sign and publish it again as a newer one")
    earlier = tuple(other for other in rollout.promoted if other != wanted)
    return changed(rollout, {"promoted": (*earlier, wanted)[-KEPT:], **_NO_CANDIDATE})


def withdraw(rollout: Rollout, version: int) -> Rollout:
    """Take a version (0: the candidate, or without one the promoted version) back from everybody.

    Raises:
        ConfigError: there is nothing to withdraw.
    """
    wanted = version or rollout.candidate or rollout.current
    if not wanted:
        raise ConfigError("nothing to withdraw")
    others = tuple(other for other in rollout.withdrawn if other != wanted)
    changes: Mapping[str, object] = {"withdrawn": (*others, wanted)[-KEPT:]}
    return changed(rollout, {**changes, **(_NO_CANDIDATE if wanted == rollout.candidate else {})})


def paused(rollout: Rollout, reason: str) -> Rollout:
    """Keep the candidate from everybody who has not got it yet.

    Raises:
        ConfigError: there is no candidate.
    """
    _candidate(rollout)
    return changed(rollout, {"paused": reason})


def resumed(rollout: Rollout, now: float) -> Rollout:
    """Go on with the rollout; failures told until `now`, in seconds since the epoch, count no more.

    Raises:
        ConfigError: there is no candidate, or it is not paused.
    """
    _candidate(rollout)
    if not rollout.paused:
        raise ConfigError("the rollout is not paused")
    return changed(rollout, {"paused": "", "resumed_at": now})


def grouped(rollout: Rollout, name: str, devices: tuple[str, ...], threshold: float | None) -> Rollout:
    """Name a group's devices; none removes the group.

    Raises:
        ConfigError: an id is none, or there are too many.
    """
    groups = {other: group for other, group in rollout.groups.items() if other != name}
    wrong = [device for device in (name, *devices) if not NAME.fullmatch(device)]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is no name of a group or a device")
    if devices:
        limit = {} if threshold is None else {"threshold": threshold}
        groups[name] = parse(Group, {"devices": devices, **limit}, f"group {name}")
    return changed(rollout, {"groups": groups})


_NO_CANDIDATE: dict[str, object] = {"candidate": 0, "percent": 0.0, "paused": "", "resumed_at": 0.0}


def changed(rollout: Rollout, changes: Mapping[str, object]) -> Rollout:
    """Return a rollout with changes, validated."""
    return Rollout.model_validate({**rollout.model_dump(), **changes})


def _available(version: int, available: Sequence[int]) -> None:
    if version not in available:
        known = ", ".join(map(str, available)) or "none"
        raise ConfigError(f"no version {version} in the store; there are {known}")


def _candidate(rollout: Rollout) -> None:
    if not rollout.candidate:
        raise ConfigError("no rollout is going on; begin one with --percent")
