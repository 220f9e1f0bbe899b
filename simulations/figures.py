"""The figures of a run, or of several seeds, in the form that the terminal's table and the report both show."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DASH = "—"
Form = Callable[[float], str]


def derive(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what follows from a summary and is worth showing; all accuracies are fractions, not points.

    `federation_gain` of a class is what its released student has over the larger of local-only and teacher-only,
    `gap_closed` the mean over classes of the share of the way from teacher-only to the central ceiling (classes
    without such a way left out), `fedavg_ratio` how many times more bytes FedAvg would have sent. `refused` is 1 for a
    class whose release was refused, so that the mean of several seeds is the share of them; absent where none was
    verified.
    """
    classes = summary["device_classes"]
    gains = {name: _gain(found) for name, found in classes.items()}
    known = [gain for gain in gains.values() if gain is not None]
    wire = summary["wire"]
    fedavg = summary["rounds"] * sum(found["devices"] * found["fedavg_bytes_per_round"] for found in classes.values())
    return {
        "federation_gain": gains,
        "gain_mean": sum(known) / len(known) if known else None,
        "gain_worst": min(known, default=None),
        "gap_closed": _gap_closed(classes, summary["central"]["accuracy"]),
        "fedavg_ratio": {
            name: _ratio(
                found["fedavg_bytes_per_round"], found["uplink_bytes_per_round"] + found["downlink_bytes_per_round"]
            )
            for name, found in classes.items()
        },
        "refused": {name: float(bool(found["refused"])) for name, found in classes.items() if "refused" in found},
        "fedavg_ratio_total": _ratio(fedavg, wire["uplink_bytes"] + wire["downlink_bytes"]),
    }


def _gain(found: Mapping[str, Any]) -> float | None:
    rivals = [found[key] for key in ("accuracy_local_only", "accuracy_teacher_only") if found[key] is not None]
    return found["accuracy_released"] - max(rivals) if rivals and found["accuracy_released"] is not None else None


def _gap_closed(classes: Mapping[str, Mapping[str, Any]], central: float | None) -> float | None:
    shares = []
    for found in classes.values():
        begin, end = found["accuracy_teacher_only"], found["accuracy_released"]
        if central is not None and begin is not None and end is not None and central > begin:
            shares.append((end - begin) / (central - begin))
    return sum(shares) / len(shares) if shares else None


def _ratio(rival: float, own: float) -> float | None:
    return rival / own if own else None


@dataclass(frozen=True)
class Cell:
    """A figure to show: its text, `±` and its spread (empty: not measured), and `good`, `bad` or no tone."""

    text: str
    spread: str = ""
    tone: str = ""

    @property
    def line(self) -> str:
        """Text and spread on one line."""
        return f"{self.text} {self.spread}".rstrip()


@dataclass(frozen=True)
class Figures:
    """Figures of a run or of several seeds.

    Attributes:
        mean: a summary with its `derived` figures, or the means of several.
        std: standard deviations under the same keys; None: a single run.
    """

    mean: Mapping[str, Any]
    std: Mapping[str, Any] | None = None

    @classmethod
    def of_run(cls, summary: Mapping[str, Any]) -> "Figures":
        """Return the figures of one summary."""
        return cls({**summary, "derived": derive(summary)})

    @classmethod
    def of_seeds(cls, seeds: Mapping[str, Any]) -> "Figures":
        """Return the figures of what `simulations.seeds.combine` returned."""
        derived = seeds["derived"]
        return cls({**seeds["mean"], "derived": derived["mean"]}, {**seeds["std"], "derived": derived["std"]})

    @property
    def classes(self) -> list[str]:
        """Names of the device classes."""
        return list(self.mean["device_classes"])

    def value(self, *path: str) -> Any:
        """Return the figure under a path of keys; None where there is none."""
        return _at(self.mean, path)

    def cell(self, form: Form, *path: str, exact: bool = False) -> Cell:
        """Return the figure under a path; `exact` ones follow from the configuration and have no spread."""
        value = self.value(*path)
        if value is None:
            return Cell(DASH)
        spread = None if exact or self.std is None else _at(self.std, path)
        return Cell(form(value), "" if spread is None else "±" + form(spread).lstrip("+"))


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def percent(value: float) -> str:
    """Format a fraction as percent, without the sign."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """Format a difference of fractions as points."""
    return f"{100 * value:+.1f}"


def kilobytes(value: float) -> str:
    """Format bytes as kB of 1000 bytes, without the unit."""
    return f"{value / 1e3:.1f}" if value < 1e5 else f"{value / 1e3:,.0f}"


def size(value: float) -> str:
    """Format bytes with the unit that suits them (powers of 1000)."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float) -> str:
    """Format milliseconds, without the unit."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def seconds(value: float) -> str:
    """Format seconds as seconds or minutes."""
    return f"{value:.1f} s" if value < 600 else f"{value / 60:.1f} min"


def count(value: float) -> str:
    """Format a count, shortened from 10,000 on."""
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    return f"{value / 1e3:.1f}k" if value >= 1e4 else f"{value:,.0f}"


def times(value: float) -> str:
    """Format a ratio."""
    return f"{value:.1f}x" if value < 10 else f"{value:,.0f}x"
