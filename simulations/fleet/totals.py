"""What a whole run cost in virtual time: for `summary.json`, the terminal and the report."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from simulations.fleet.course import Fleet

SUMS = ("asked", "offline", "busy", "failed", "deadline_misses", "late_answers", "unused_answers", "energy_joules")


def totals(fleet: Fleet, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a run in virtual time: seconds, joules and counts over all rounds, by device class.

    Args:
        fleet: the run's devices.
        rows: the lines of `rounds.jsonl`.
    """
    found = [row["virtual"] for row in rows]
    stale = [one["staleness"] for one in found if one["staleness"] is not None]
    return {
        "policy": fleet.settings.rounds.policy,
        "seconds": found[-1]["end_seconds"],
        "round_seconds_mean": fmean(one["round_seconds"] for one in found),
        "round_seconds_max": max(one["round_seconds"] for one in found),
        "waited_seconds": sum(one["waited_seconds"] for one in found),
        "staleness_mean": fmean(stale) if stale else None,
        "device_classes": {
            name: {
                "train_samples_per_second": speeds.train,
                "predict_samples_per_second": speeds.predict,
                "predict_source": speeds.source,
                **{key: sum(one["device_classes"][name][key] for one in found) for key in SUMS},
            }
            for name, speeds in fleet.speeds.items()
        },
    }
