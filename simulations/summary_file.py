"""Reads `summary.json`, which says that a run is finished, and the rows of its rounds."""

import json
from pathlib import Path
from typing import Any

from fedstill.errors import DataError
from simulations.run_folder import ROUNDS, SUMMARY


def read_summary(run: Path) -> dict[str, Any] | None:
    """Return the summary of the run in a folder; None: it is not finished.

    Raises:
        DataError: it can't be read.
    """
    path = run / SUMMARY
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged: {error}; remove it, and simulate --resume writes it anew") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: damaged: no JSON object; remove it, and simulate --resume writes it anew")
    return found


def read_finished(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the summary of the finished run in a folder, and its rounds' rows.

    Raises:
        DataError: they can't be read, or it is not finished.
    """
    summary, path = read_summary(run), run / ROUNDS
    if summary is None:
        raise DataError(f"{run}: not finished; continue it with simulate --resume")
    try:
        rows = [dict(json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged: {error}; run it anew in another folder") from error
    return summary, rows
