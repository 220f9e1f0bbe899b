import json
import sys
from pathlib import Path

import pytest

from benchmarks.hostile import ATTACKS, assignments, attacks, main
from simulations.commands import simulate
from simulations.scenario import load_scenario


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_options: list[str]) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "run"
    simulate("digits", out=out, assignments=small_options[1::2], workers=1)
    return out


def test_every_attack_of_whole_runs_is_one_that_a_scenario_takes() -> None:
    for _, attack in attacks(0.2):
        assert load_scenario("mnist", assignments(attack)).attack == attack


@pytest.mark.parametrize("extra", [[], ["--distil", "mcu"]])
def test_a_replay_has_a_row_per_attack_and_a_column_per_rule(
    extra: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["hostile", "replay", str(run), "--share", "0.5", "--rules", "mean", "reputable-experts", *extra]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("digits, seed 0, round 2, 50% hostile")
    rows = [line.strip("| ").split(" | ") for line in printed[3:]]
    assert [len(row) for row in rows] == [3] * (2 * len(ATTACKS) - 1)
    assert rows[0][0] == "none"
    # the smallest student learns too little in this small run to tell attacks apart
    assert extra or len({tuple(row[1:]) for row in rows}) > 1


def test_a_cell_of_whole_runs_is_the_least_accurate_class_over_the_seeds_and_what_the_attack_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, _ in attacks(0.2):
        for seed, least in enumerate((0.7, 0.8) if name == "none" else (0.6, 0.7)):
            out = tmp_path / f"digits-0.2-mean-{name.replace(' ', '-').replace(',', '')}-seed-{seed}"
            out.mkdir()
            classes = {"pi5": {"accuracy_released_fp32": 0.9}, "mcu": {"accuracy_released_fp32": least}}
            (out / "summary.json").write_text(json.dumps({"device_classes": classes}))
    words = ["hostile", "runs", "digits", "--out", str(tmp_path), "--rules", "mean", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "digits, seeds 0, 1, 20% hostile: least accurate released fp32 student"
    assert printed[3] == "| none | 75.00 ± 7.07 |"
    assert printed[4] == "| flip, uniform prior | 65.00 ± 7.07 (10.00 ± 0.00 lost) |"
    assert len(printed) == 3 + len(list(attacks(0.2)))
    monkeypatch.setattr(sys, "argv", [*words, "--attacks", "scale by -1, false prior"])
    main()
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[3:]] == [
        "| none",
        "| scale by -1, false prior",
    ]
