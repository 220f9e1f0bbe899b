import io

import pytest
from rich.console import Console

from simulations.parts import part_done
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


@pytest.mark.parametrize("terminal", [True, False])
def test_the_devices_of_a_long_round_are_shown_with_rate_and_time_left(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.progress.EVERY", 0.0)
    output = io.StringIO()
    with RunProgress(Console(file=output, force_terminal=terminal, width=160)) as progress:
        progress.stage("rounds", 3, done=1, parts=40)
        for _ in range(30):
            part_done()
    shown = output.getvalue()
    assert "30/40" in shown
    assert "devices" in shown
    assert "left" in shown


def test_devices_of_hosts_elsewhere_are_shown_when_they_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.progress.EVERY", 0.0)
    output = io.StringIO()
    with RunProgress(Console(file=output, force_terminal=False, width=160)) as progress:
        progress.stage("rounds", 3, parts=40)
        progress.heard(20)
        progress.heard(20)
        progress.heard(25)
        part_done()
        progress.step(1)
        progress.asking(5)
        progress.heard(4)
    shown = output.getvalue()
    assert [shown.count(f"devices {done}/40") for done in (20, 25, 26)] == [1, 1, 1]
    assert "in 2, devices 4/5" in shown


def test_devices_of_no_round_show_nothing() -> None:
    part_done()
    output = io.StringIO()
    with RunProgress(Console(file=output, force_terminal=False, width=160)) as progress:
        progress.stage("references", 3)
        part_done()
        progress.stage("rounds", 3, parts=40)
    assert "devices" not in output.getvalue()


def test_a_stage_of_many_steps_does_not_fill_a_log_with_lines() -> None:
    output = io.StringIO()
    with RunProgress(Console(file=output, force_terminal=False, width=160)) as progress:
        progress.stage("references", 5000)
        for done in range(1, 5001):
            progress.step(done)
    assert len(output.getvalue().splitlines()) < 1000
    assert "5000/5000" in output.getvalue()
