"""Finished runs of `fedstill simulate` for the benchmarks: what is there is not repeated, what was killed goes on."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from simulations.run_folder import CONFIG, SUMMARY


def finished(
    out: Path,
    scenario: str,
    changes: Iterable[str],
    options: Iterable[str] = (),
    *,
    data_dir: Path | None = None,
    workers: int | None = None,
    log: int | IO[str] | None = None,
) -> dict[str, Any]:
    """Return the summary of a run, which is begun, continued or only read.

    Args:
        out: its folder.
        scenario: name or file.
        changes: of the scenario, such as `rounds=4`.
        options: further ones of a run that begins.
        data_dir: where the task's data are.
        workers: processes that it takes; None: one for each core.
        log: where the run's output goes; None: where this process's goes.

    Raises:
        subprocess.CalledProcessError: the run ended with an error, which its output tells.
    """
    if not (out / SUMMARY).exists():
        command = [sys.executable, "-m", "fedstill.cli", "simulate", "--out", str(out)]
        command += ["--workers", str(workers)] if workers else []
        if (out / CONFIG).exists():
            command += ["--resume"]
        else:
            sets = [word for change in changes for word in ("--set", change)]
            data = ["--data-dir", str(data_dir)] if data_dir else []
            command += [scenario, *options, *data, *sets]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    found: dict[str, Any] = json.loads((out / SUMMARY).read_text())
    return found
