"""Several runs of one scenario that differ in their seed: what they run, and `seeds.json`, their mean and deviation."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field

from fedstill.config import Settings, parse, read_toml
from fedstill.errors import RunFolderError
from fedstill.files import write_atomic
from simulations.figures import derive
from simulations.run_folder import SEEDS_PLAN
from simulations.scenario import Scenario, resolved

# Returned for a leaf that has no place in the result; None is a result of its own.
_LEFT_OUT = object()


class SeedsPlan(Settings):
    """What several runs compute; lies in their folder, so that all get one configuration, whenever they begin."""

    seeds: list[int] = Field(min_length=1)
    """Their seeds, in the order of `seeds.json`."""
    scenario: Scenario
    """What each one runs, but for its seed."""

    def load(self, seed: int) -> Scenario:
        """Return the scenario of a seed."""
        return resolved(self.scenario.model_dump(exclude_none=True), [f"seed={seed}"], f"seed {seed}")

    def write(self, folder: Path) -> None:
        """Write it into the seeds' folder."""
        write_atomic(folder / SEEDS_PLAN, tomli_w.dumps(self.model_dump(exclude_none=True)).encode())


def resumed(folder: Path, seeds: Sequence[int]) -> SeedsPlan:
    """Return the plan of the seeds in `folder`, with those added that it does not have.

    Raises:
        RunFolderError: there is no plan in it.
    """
    path = folder / SEEDS_PLAN
    if not path.is_file():
        raise RunFolderError(f"{folder}: no seeds to resume here ({SEEDS_PLAN} is missing)")
    plan = parse(SeedsPlan, read_toml(path), str(path))
    more = [seed for seed in seeds if seed not in plan.seeds]
    return plan.model_copy(update={"seeds": [*plan.seeds, *more]})


def combine(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of `seeds.json`.

    Args:
        summaries: the content of `summary.json` of each seed, at least one, all of one scenario.

    Returns:
        `scenario`, `seeds` (in the given order), `mean` and `std` under the keys of a summary without `seed`, and
        `derived` with `mean` and `std` of `simulations.figures.derive`, which can't be had from the means. A
        standard deviation is the sample's (ddof=1), 0.0 for a single seed. A figure that is null in any summary is
        null in both. Text and truth values are kept in `mean` where all seeds agree on them, and in no `std`.

    Raises:
        ValueError: there is no summary, or the summaries don't have the same scenario and keys.
    """
    if not summaries:
        raise ValueError("no summaries to combine")
    scenarios = {str(summary["scenario"]) for summary in summaries}
    if len(scenarios) > 1:
        raise ValueError(f"summaries of different scenarios: {', '.join(sorted(scenarios))}")
    contents = [{key: value for key, value in summary.items() if key != "seed"} for summary in summaries]
    derived = [derive(summary) for summary in summaries]
    return {
        "scenario": summaries[0]["scenario"],
        "seeds": [summary["seed"] for summary in summaries],
        "mean": _merge(contents, _mean),
        "std": _merge(contents, _std),
        "derived": {"mean": _merge(derived, _mean), "std": _merge(derived, _std)},
    }


def _merge(trees: Sequence[Mapping[str, Any]], leaf: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    if any(tree.keys() != trees[0].keys() for tree in trees):
        raise ValueError(f"summaries with different keys: {sorted(set().union(*trees))}")
    merged: dict[str, Any] = {}
    for key, first in trees[0].items():
        values = [tree[key] for tree in trees]
        found = _merge(values, leaf) if isinstance(first, Mapping) else leaf(values)
        if found is not _LEFT_OUT:
            merged[key] = found
    return merged


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _mean(values: Sequence[Any]) -> Any:
    if not _is_numeric(values):
        return values[0] if all(value == values[0] for value in values) else _LEFT_OUT
    return None if None in values else statistics.mean(values)


def _std(values: Sequence[Any]) -> Any:
    if not _is_numeric(values):
        return _LEFT_OUT
    if None in values:
        return None
    return float(statistics.stdev(values)) if len(values) > 1 else 0.0
