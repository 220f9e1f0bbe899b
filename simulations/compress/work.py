"""The work of the `compress` command: a run to begin with, the trials that are missing, what came of all of them."""

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from fedstill.errors import ConfigError, DataError
from fedstill.files import drop_unfinished, write_atomic
from fedstill.learning import State
from fedstill.models.shapes import Shape
from fedstill.workers import default_workers
from server.compress.figures import Figures, measure
from server.compress.learn import Candidate, Material, learn
from server.release.keys import open_keys
from simulations.compress.finish import JSON, finish
from simulations.compress.finished import Finished, check_method
from simulations.compress.front import holding, nearest
from simulations.compress.plan import PLAN, CompressPlan, class_of
from simulations.compress.prepare import space_of
from simulations.compress.search import STATES, Evaluate, Search
from simulations.how import Engine, How
from simulations.launch import launch, prepare
from simulations.progress import RunProgress
from simulations.run_folder import CONFIG, Claim, goes_on
from simulations.scenario import load_scenario


def run_first(device_class: str, scenario: str, data_dir: Path | None, folder: Path, keys: Path) -> Path:
    """Run a scenario in a folder beside the search's, and return it."""
    changes = [] if data_dir is None else [f"data.dir={json.dumps(str(data_dir.resolve()))}"]
    loaded = load_scenario(scenario, changes)
    check_method(loaded, scenario)
    class_of(device_class, loaded)  # before the time that a run takes
    goes_on("simulate", folder / CONFIG, keys, f"fedstill compress {shlex.join([device_class, '--run', str(folder)])}")
    prepare(loaded, folder, keys)
    launch(folder, How(Engine.local, 0, default_workers(), keys=keys))
    return folder


def search_in(
    out: Path, plan: CompressPlan, run: Finished, material: Material | None, keys: Path, console: Console
) -> dict[str, Any]:
    """Run the trials that are missing, write what came out, and return what `front.json` tells.

    Args:
        out: the search's folder.
        plan: of the search.
        run: the finished run.
        material: what candidates learn from, if it is loaded already.
        keys: folder of the keys that sign the student.
        console: for the progress.

    Raises:
        ConfigError: no student meets the budget.
        DataError: what came out before is damaged.
    """
    goes_on("compress", out / PLAN, keys)
    with Claim(out), RunProgress(console) as progress:
        for folder in (out, out / STATES):
            if folder.is_dir():
                drop_unfinished(folder)
        write_atomic(out / PLAN, tomli_w.dumps(plan.model_dump(exclude_none=True)).encode())
        search = Search(out, space_of(plan.shape, plan.formats, run), plan.budget, run.scenario.seed)
        try:
            if search.finished < plan.trials:
                (out / JSON).unlink(missing_ok=True)  # it is there when all is done
                evaluate = partial(_evaluate, plan=plan, material=material or run.material(plan.steps))
                _try(search, evaluate, plan.trials, progress)
            measured, failures = search.tried, search.failures
        finally:
            search.close()
        if not (out / JSON).exists():
            held = holding(measured, plan.budget)
            if not held:
                what = nearest(measured, plan.budget) if measured else failures[-1]
                raise ConfigError(f"none of {plan.trials} students meets the budget; what comes nearest: {what}")
            progress.stage("release", 1)
            finish(out, plan, run, measured, held, failures, open_keys(keys))
            progress.step(1)
    try:
        found: dict[str, Any] = json.loads((out / JSON).read_text())
    except ValueError as error:
        raise DataError(f"{out / JSON}: damaged: {error}; remove it, and compress --resume writes it anew") from error
    return found


def _try(search: Search, evaluate: Evaluate, trials: int, progress: RunProgress) -> None:
    """Run the trials that are missing."""
    progress.stage("students", trials, search.finished)
    while search.finished < trials:
        tried = search.step(evaluate)
        progress.step(search.finished, "" if tried is None else f"{tried.student} {tried.figures.accuracy:.3f}")


def _evaluate(candidate: Candidate, plan: CompressPlan, material: Material) -> tuple[Shape, State, Figures]:
    shape, state = learn(candidate, material)
    return shape, state, measure(shape, state, candidate.numeric, material, plan.budget, plan.latency.scale)
