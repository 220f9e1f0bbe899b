"""`fedstill compare`, started as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [str(Path(sys.executable).parent / "fedstill"), "compare"]


def compare(out: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, *arguments, "--out", str(out), "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def figures(out: Path) -> dict[str, Any]:
    """Return `compare.json` without timings."""
    found: dict[str, Any] = json.loads((out / "compare.json").read_text())
    for method in found["methods"]:
        del method["rounds_seconds"]
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, small_options: list[str]) -> Path:
    out = tmp_path_factory.mktemp("compare") / "run"
    compare(out, "local-only", "fedavg", "fd", "--seeds", "0,1", "--rounds", "1", "--target", "1", *small_options)
    return out


def test_every_method_has_a_row_with_accuracy_and_bytes_over_the_seeds(reference: Path) -> None:
    found = figures(reference)
    assert found["seeds"] == [0, 1]
    assert [method["method"] for method in found["methods"]] == ["local-only", "fedavg", "fd"]
    assert [method["sends_weights"] for method in found["methods"]] == [False, True, False]
    for method in found["methods"]:
        summaries = [
            json.loads((reference / method["method"] / f"seed-{seed}" / "summary.json").read_text()) for seed in (0, 1)
        ]
        spent = [summary["wire"]["uplink_bytes"] + summary["wire"]["downlink_bytes"] for summary in summaries]
        assert method["bytes"]["mean"] == sum(spent) / 2
        assert method["accuracy_worst_class"]["mean"] <= method["accuracy"]["mean"]
        assert method["accuracy"]["std"] >= 0
        assert method["rounds_to_target"]["mean"] == 1
        assert method["bytes_to_target"]["mean"] == method["bytes"]["mean"]
        assert method["accuracy_best_round"] == method["accuracy_last_round"]


def test_all_methods_have_the_same_split(reference: Path) -> None:
    for seed in ("seed-0", "seed-1"):
        names = sorted(path.name for path in (reference / "fd" / seed / "assets").iterdir())
        for name in names:
            contents = {(reference / method / seed / "assets" / name).read_bytes() for method in ("fd", "fedavg")}
            assert len(contents) == 1, name


def test_the_page_holds_the_table_and_the_picture_and_loads_nothing(reference: Path) -> None:
    page = (reference / "compare.html").read_text()
    for expected in ("local-only", "fedavg *", "accuracy against bytes of each method", "<svg"):
        assert expected in page
    assert 'src="' not in page


def test_a_killed_comparison_resumes_to_the_result_of_an_undisturbed_one_and_takes_in_more_methods(
    small_options: list[str], tmp_path: Path
) -> None:
    out, whole, options = tmp_path / "killed", tmp_path / "whole", [*small_options, "--set", "rounds=8"]
    compare(whole, "local-only", "fd", *options)
    process = subprocess.Popen(
        [*COMMAND, "fd", *options, "--out", str(out), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "fd" / "seed-0" / "rounds.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)
    assert not (out / "fd" / "seed-0" / "summary.json").exists()
    compare(out, "local-only", "--resume")
    assert figures(out)["methods"] == figures(whole)["methods"][::-1]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["fedavgg"], "unknown method 'fedavgg'; did you mean 'fedavg'?"),
        (["fedavg", "fd", "fedavg"], "'fedavg' is named twice"),
        ([], "name the methods to compare"),
        (["fd", "--scenario", "digitz"], "did you mean 'digits'"),
        (["fd", "--set", "device.revist.epochs=1"], "did you mean 'revisit'"),
        (["fd", "--seeds", "0,x"], "whole numbers"),
        (["fd", "--resume"], "no comparison to resume"),
        (["fd", "--keys", "/dev/null/keys"], "name another folder with --keys"),
        (["--resume", "--rounds", "3"], "leave out options that change it"),
        (["fd", "--target", "0"], "target: Input should be greater than 0"),
        (["--resume", "--seeds", "0,1"], "leave out options that change it"),
    ],
)
def test_bad_input_is_one_clear_line_exit_code_2_and_no_folder(wrong: list[str], reason: str, tmp_path: Path) -> None:
    result = compare(tmp_path / "run", *wrong, check=False)
    assert result.returncode == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
