"""What a board's sensors tell, read from /sys."""

from collections.abc import Iterable
from pathlib import Path

ROOT = Path("/")


def temperature(root: Path = ROOT) -> float | None:
    """Return the degrees Celsius of the hottest zone; None: this board does not tell."""
    return _largest((root / "sys" / "class" / "thermal").glob("thermal_zone*/temp"), 1000, -100, 150)


def power(root: Path = ROOT) -> float | None:
    """Return the watts of the largest meter; None: this board has none."""
    return _largest((root / "sys" / "class" / "hwmon").glob("hwmon*/power1_input"), 1_000_000, 0, 10_000)


def _largest(paths: Iterable[Path], unit: int, low: float, high: float) -> float | None:
    """Return the largest value that can be believed: a sensor that is asleep or not connected tells nonsense."""
    found = []
    for path in paths:
        try:
            found.append(int(path.read_text()) / unit)
        except (OSError, ValueError):
            continue
    return max((value for value in found if low <= value <= high), default=None)
