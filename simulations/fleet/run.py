"""A scenario's fleet: what has to hold before a run begins, and the clock of the run."""

from pathlib import Path

from fedstill.tasks import load_task
from server.delivery.summary import read
from simulations.fleet.course import Fleet
from simulations.fleet.speeds import check_memory, speeds_of
from simulations.fleet.timekeeper import Timekeeper
from simulations.scenario import Scenario
from simulations.telemetry import newest, told


def check(scenario: Scenario) -> None:
    """Make sure that a scenario's students can be computed by its fleet.

    Raises:
        ConfigError: a class has too little memory, or its devices did not tell the speed that they should.
    """
    if scenario.fleet is None:
        return
    task = load_task(scenario.task)
    fits = [scenario.device.first_digest, scenario.device.revisit, scenario.device.digest]
    batch = max(fit.batch for fit in fits if fit is not None)
    check_memory(scenario.fleet.classes, scenario.device_classes, task, scenario.data.proxy_samples, batch)
    known = newest(scenario, read(Path(scenario.telemetry))) if scenario.telemetry else {}
    speeds_of(scenario.fleet.classes, scenario.device_classes, task, known)


def clock_of(scenario: Scenario, out: Path) -> Timekeeper | None:
    """Return the clock of the run in `out`; None: the run has no fleet."""
    if scenario.fleet is None:
        return None
    speeds = speeds_of(scenario.fleet.classes, scenario.device_classes, load_task(scenario.task), told(scenario, out))
    return Timekeeper(
        Fleet(
            settings=scenario.fleet,
            classes=scenario.classes_of_devices(),
            speeds=speeds,
            seed=scenario.seed,
            quorum=scenario.quorum,
            active=scenario.exchange.active,
        )
    )
