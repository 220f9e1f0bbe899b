"""Runs that the benchmarks begin, continue, and don't repeat."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.finished import finished
from simulations.run_folder import SUMMARY

CHEAP = ("rounds=1", "references.local_only=0", "references.central=false", "references.teacher_only=false")


def test_a_run_is_begun_once_and_goes_on_where_it_was_killed(small_options: list[str], tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"

    def told(seed: int) -> tuple[dict[str, object], str]:
        with log.open("w") as file:
            begin = [*small_options, "--seed", str(seed)]
            found = finished(out, "digits", CHEAP, begin, workers=1, log=file)
        return found, log.read_text()

    begun, said = told(7)
    assert begun["seed"] == 7
    assert said
    (out / SUMMARY).unlink()  # as if it had been killed before the end
    continued, said = told(8)
    assert said
    assert (continued["seed"], continued["wire"]) == (7, begun["wire"])
    assert told(9) == (continued, "")


def test_a_run_that_can_not_begin_is_told(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        finished(tmp_path / "run", "no-such-scenario", (), log=subprocess.DEVNULL)
    assert raised.value.returncode == 2
