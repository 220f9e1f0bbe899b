from pathlib import Path
from typing import Any

import pytest

from fedstill.errors import ConfigError, DataError, RunFolderError
from simulations.commands import seed_list, simulate
from simulations.methods import load_method
from simulations.run_folder import CONFIG, SEEDS_PLAN, SUMMARY
from simulations.scenario import Scenario, dump
from simulations.seeds import SeedsPlan


def run_in(folder: Path, scenario: Scenario) -> None:
    (folder / CONFIG).write_text(dump(scenario))
    SeedsPlan(seeds=[0], scenario=scenario).write(folder)


@pytest.mark.parametrize("seeds", [None, "0,1"])
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"scenario": "mnist"}, "has a run of small; leave scenario and --method out"),
        ({"method": "fedavg"}, "has a run of small; leave scenario and --method out"),
        ({"rounds": 1}, "leave out options that change it"),
        ({"assignments": ["seed=1"]}, "leave out options that change it"),
    ],
)
def test_another_run_than_a_folder_has_is_not_resumed_in_it(
    seeds: str | None, named: dict[str, Any], said: str, small: Scenario, tmp_path: Path
) -> None:
    run_in(tmp_path, small.model_copy(update={"name": "small"}))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=said):
        simulate(out=tmp_path, resume=True, seeds=seeds, **named)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("method", ["fedstill", "fedmd"])
@pytest.mark.parametrize(
    "named", [{}, {"scenario": "digits"}, {"method": True}, {"scenario": "digits", "method": True}]
)
def test_a_folders_own_scenario_and_method_may_be_named_to_resume_it(
    method: str, named: dict[str, Any], tmp_path: Path
) -> None:
    run_in(tmp_path, load_method("digits", method))
    (tmp_path / SEEDS_PLAN).unlink()
    (tmp_path / SUMMARY).write_text("[]")  # told where a run of this configuration is finished
    if "method" in named:
        named = {**named, "method": method}
    with pytest.raises(DataError, match="damaged: no JSON object; remove it"):
        simulate(out=tmp_path, resume=True, **named)


def test_seeds_are_not_added_to_a_folder_that_has_none(small: Scenario, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(dump(small))
    with pytest.raises(RunFolderError, match=f"no seeds to resume here .{SEEDS_PLAN} is missing"):
        simulate(out=tmp_path, resume=True, seeds="0")
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG]


@pytest.mark.parametrize("text", ["", "0,x", "0,0", "-1", "0,4294967296"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--seeds {text}: "):
        seed_list(text)
