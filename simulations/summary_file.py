"""Reads `summary.json`, which says that a run is finished."""

import json
from pathlib import Path
from typing import Any

from fedstill.errors import DataError
from simulations.run_folder import SUMMARY


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
