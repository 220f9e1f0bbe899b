import time
from pathlib import Path

import numpy as np
import pytest

from simulations.memory import SPENT, PeakMemory, Spent, tree_pss


def test_the_peak_remembers_memory_that_was_given_back() -> None:
    before = tree_pss()
    with PeakMemory(interval=0.01) as memory:
        block = np.ones(100 << 20, dtype=np.uint8)
        while memory.peak < before + (80 << 20):
            block.fill(2)  # keeps the block in use until a sample has seen it
        del block
    assert memory.peak >= before + (80 << 20)


def test_a_process_that_goes_on_with_a_run_adds_to_the_time_and_peak_of_those_before_it(tmp_path: Path) -> None:
    begin = time.monotonic()
    first = Spent(tmp_path)
    first.peak = 1 << 50
    with first:
        time.sleep(0.2)
    with Spent(tmp_path) as second:
        assert 0.2 <= second.seconds <= time.monotonic() - begin
    assert second.peak == 1 << 50


def test_a_process_that_is_killed_has_told_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.memory.NOTED", 0.0)
    with Spent(tmp_path):
        while not (tmp_path / SPENT).exists():
            time.sleep(0.01)
        with Spent(tmp_path) as other:
            assert other.seconds > 0
