import json

import pytest

from benchmarks.label_traffic import DURATIONS, FOLDER, Load, main, published, refreshing, table

EVERYTHING = Load(proxy=20, per_round=20, rounds=120)  # each round draws all samples: cycles can be counted by hand


def test_refresh_on_expiry_asks_once_in_each_duration() -> None:
    assert refreshing(EVERYTHING, 10) == 12 / 120


def test_the_published_rule_asks_three_times_in_each_cycle() -> None:
    # In round 1 to cache, at age D (the answer is thrown away), at D + 1 (the entry is cleared), and again to cache:
    # rounds 11 to 13, 23 to 25 and so on to 107 to 109, then 119 and 120.
    assert published(EVERYTHING, 10) == (1 + 9 * 3 + 2) / 120


@pytest.mark.parametrize("duration", [0, 1])
def test_a_label_that_does_not_last_saves_nothing(duration: int) -> None:
    assert refreshing(Load(100, 10, 30), duration) == 1


def test_the_stored_figures_are_those_of_the_program_and_reach_the_goal(capsys: pytest.CaptureFixture[str]) -> None:
    log = (FOLDER / "log.txt").read_text()
    main(["--duration", "50", "--json"])
    printed = capsys.readouterr().out
    assert printed in log
    assert json.loads(printed)["uplink_fraction"] <= 0.1715
    assert json.loads(printed)["published_fraction"] == pytest.approx(0.299, abs=5e-4)


def test_the_documented_table_is_the_stored_one() -> None:
    log = (FOLDER / "log.txt").read_text()
    stored = log[log.index("| D |") :].split("\n\n")[0].strip()
    assert stored.count("\n") == 1 + len(DURATIONS)
    assert stored in (FOLDER.parents[2] / "docs" / "results.md").read_text()


def test_the_table_has_a_row_for_each_duration() -> None:
    assert table(Load(100, 10, 30), [2, 5]).count("\n") == 3


@pytest.mark.parametrize(
    "wrong", [["--per-round", "0"], ["--per-round", "20000"], ["--rounds", "0"], ["--duration", "-1"]]
)
def test_an_impossible_load_ends_with_exit_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert "--" in capsys.readouterr().err
