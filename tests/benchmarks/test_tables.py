import json
from pathlib import Path

import pytest

from benchmarks.tables import COMPARED, FOLDER, SCENARIOS, facts, methods, stored, table
from simulations.seeds import combine

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_documented_tables_are_those_of_the_stored_runs(scenario: str) -> None:
    seeds = stored(scenario)
    assert table(seeds) in PAGE
    assert facts(seeds) in PAGE


@pytest.mark.parametrize("name", COMPARED)
def test_the_documented_comparison_is_the_stored_one(name: str) -> None:
    assert methods(json.loads((FOLDER / name / "compare.json").read_text())) in PAGE


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_stored_mean_is_that_of_the_stored_seeds(scenario: str) -> None:
    summaries = [json.loads(path.read_text()) for path in sorted((FOLDER / scenario).glob("seed-*.json"))]
    assert summaries
    assert combine(summaries) == stored(scenario)


def test_seeds_of_different_commits_have_a_line_all_the_same() -> None:
    summaries = [json.loads(path.read_text()) for path in sorted((FOLDER / "digits").glob("seed-*.json"))]
    summaries[1]["commit"] = "another"
    assert "commits by seed in its summary" in facts(combine(summaries))
    for summary in summaries:
        summary["commit"] = "0123456789abcdef+dirty"
    assert "commit `0123456789+dirty`" in facts(combine(summaries))
