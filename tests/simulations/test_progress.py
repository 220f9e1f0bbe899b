import io

import pytest
from rich.console import Console

from simulations.progress import RunProgress


@pytest.mark.parametrize("terminal", [True, False])
def test_every_stage_shows_its_steps_and_note(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160)
    with RunProgress(console) as progress:
        progress.stage("rounds", 4, done=1)
        progress.step(2, "teacher 0.9")
        progress.step(4, "teacher 0.95")
    shown = output.getvalue()
    assert "rounds" in shown
    assert "4/4" in shown
    assert "teacher 0.95" in shown


def test_the_time_left_counts_only_what_this_process_did() -> None:
    output = io.StringIO()
    with RunProgress(Console(file=output, force_terminal=False, width=160)) as progress:
        progress.stage("rounds", 100, done=99)
        progress.step(99)
        progress.step(100)
    assert "100/100" in output.getvalue()
    assert output.getvalue().rstrip().endswith("0 s left")
