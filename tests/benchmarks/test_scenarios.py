from pathlib import Path

import pytest

import benchmarks
from simulations.scenario import load_scenario
from simulations.validate import validate

FILES = sorted((Path(benchmarks.__file__).parent / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_of_the_benchmarks_is_called_like_its_file_and_valid(path: Path) -> None:
    scenario = load_scenario(str(path))
    assert scenario.name == path.stem
    validate(scenario)
