from pathlib import Path

import pytest

from fedstill.errors import DataError
from simulations.run_folder import ROUNDS, SUMMARY
from simulations.summary_file import read_finished


def test_a_finished_run_gives_its_summary_and_its_rounds(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text('{"seed": 3}')
    (tmp_path / ROUNDS).write_text('{"round": 1}\n{"round": 2}\n')
    assert read_finished(tmp_path) == ({"seed": 3}, [{"round": 1}, {"round": 2}])


@pytest.mark.parametrize(
    ("summary", "rounds", "told"),
    [
        (None, '{"round": 1}', "not finished; continue it"),
        ('{"seed"', '{"round": 1}', "summary.json: damaged"),
        ('{"seed": 3}', None, "rounds.jsonl: damaged"),
        ('{"seed": 3}', '{"round": 1}\n{"rou', "rounds.jsonl: damaged"),
        ('{"seed": 3}', "7", "rounds.jsonl: damaged"),
    ],
)
def test_a_run_that_is_not_finished_or_damaged_is_told_in_one_line(
    summary: str | None, rounds: str | None, told: str, tmp_path: Path
) -> None:
    for name, content in ((SUMMARY, summary), (ROUNDS, rounds)):
        if content is not None:
            (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told) as raised:
        read_finished(tmp_path)
    assert "\n" not in str(raised.value)
