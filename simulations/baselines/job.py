"""The job of a baseline's run: the method's server half, then what every run ends with."""

from flwr.serverapp import Grid

from fedstill.files import write_json
from fedstill.loading import load_object
from fedstill.tasks import load_task
from simulations.baselines.half import Outcome
from simulations.memory import Spent
from simulations.progress import RunProgress
from simulations.release import release_students
from simulations.run_folder import SUMMARY
from simulations.setup import Setup
from simulations.shelf import open_shelf
from simulations.summary import summarize


def run(grid: Grid, setup: Setup, progress: RunProgress, spent: Spent) -> None:
    """Run the method that the scenario names; everything that comes out lies in the run folder."""
    scenario = setup.scenario
    shelf = open_shelf(setup.assets, scenario)
    outcome: Outcome = load_object(scenario.method.server)(grid, setup, shelf, progress)
    kinds = scenario.device_classes
    states = {name: outcome.models[kind.student] for name, kind in kinds.items() if kind.student in outcome.models}
    released = release_students(setup, shelf, states, progress)
    summary = summarize(
        setup,
        outcome,
        outcome.traffic,
        outcome.references,
        released,
        shelf.proxy_path.stat().st_size if scenario.method.holds_proxy else 0,
        None,
        spent.seconds,
        spent.peak,
    )
    facts = {name: found.__dict__ for name, found in released.items()}
    label_names = load_task(scenario.task).label_names
    from simulations.report import write_report  # plots: see simulations.how

    write_report(setup.out, summary, outcome.rows, facts, shelf.partition, shelf.private.labels, label_names)
    write_json(setup.out / SUMMARY, summary)
