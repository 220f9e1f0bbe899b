"""Before a search: which formats suit, where latencies come from, and whether the budget can be met at all.

Nothing is written here; untrained networks do, as size, memory and latency are those of their architecture.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from fedstill.device_classes import Budget, NumericFormat
from fedstill.errors import ConfigError, ExportError
from fedstill.models.shapes import Shape
from server.compress.figures import Exported, Figures, misses
from server.compress.learn import Material
from server.delivery.summary import read
from server.release.formats import FORMATS
from server.students import initial
from simulations.compress import LEAST_STEPS
from simulations.compress.finished import Finished
from simulations.compress.plan import ClassFile, CompressPlan, Latency, class_of, searchable
from simulations.compress.space import Space
from simulations.telemetry import FILE
from simulations.validate import check_logits


def prepare_plan(
    name: str, run: Finished, trials: int, steps: int | None, telemetry: Path | None
) -> tuple[CompressPlan, Material]:
    """Return the plan of a new search and what its candidates learn from.

    Args:
        name: of a class of the run, or the path of a class file.
        run: the finished run.
        trials: candidates to try.
        steps: of each candidate; None: as many as the run's class students took.
        telemetry: file that `fedstill server telemetry --out` wrote; None: what the run knew.

    Raises:
        ConfigError: no such class, a student that can't be searched, or a budget that nothing meets.
        ExportError: the student can't be exported in any format.
        DataError: the run's data can't be used.
    """
    kind = class_of(name, run.scenario)
    shape, budget = searchable(kind.student), kind.budget
    check_logits(f"{name}: student", kind.student, shape.build(run.task), run.task)
    used = run.steps if steps is None else steps
    if used < LEAST_STEPS:
        raise ConfigError(
            f"{run.folder}: its class students took {used} steps, too few to tell students apart; give --steps, "
            f"{LEAST_STEPS} or more"
        )
    material = run.material(used)
    measured, left_out = _formats(shape, kind.format, material, budget)
    latency = latency_of(kind, run, telemetry, next(iter(measured.values())).latency_ms)
    if not any(_holds(figures, budget, latency.scale) for figures in measured.values()):
        _check_reachable(space_of(shape, tuple(measured), run), material, budget, latency.scale)
    plan = CompressPlan(
        run=str(run.folder),
        device_class=kind.name,
        student=kind.student,
        budget=budget,
        trials=trials,
        steps=used,
        formats=tuple(measured),
        left_out=left_out,
        latency=latency,
    )
    return plan, material


def space_of(shape: Shape, formats: tuple[NumericFormat, ...], run: Finished) -> Space:
    """Return the space around a hand-made student."""
    data = run.scenario.data
    return Space(shape, formats, run.temperature, labelled=data.server_samples > data.guard_samples)


def _formats(
    shape: Shape, own: NumericFormat, material: Material, budget: Budget
) -> tuple[dict[NumericFormat, Figures], dict[str, str]]:
    """Return the figures of an untrained student in each format that suits it, its own first, and why others don't."""
    # A class whose budget counts activations runs C, which is written of static int8.
    wanted = ("static-int8",) if budget.ram == "activations" else sorted(FORMATS, key=lambda name: name != own)
    measured: dict[NumericFormat, Figures] = {}
    left_out: dict[str, str] = {}
    state = initial(material.task, str(shape), material.seed)
    with tempfile.TemporaryDirectory() as folder:
        exported = Exported(Path(folder), shape, state, material)
        for numeric in (FORMATS[name].name for name in wanted):
            try:
                measured[numeric] = exported.figures(numeric, budget)
            except ExportError as error:
                left_out[numeric] = str(error)
    if not measured:
        reasons = "; ".join(f"{numeric}: {reason}" for numeric, reason in left_out.items())
        raise ExportError(f"{shape} can't be exported in any format: {reasons}")
    return measured, left_out


def latency_of(kind: ClassFile, run: Finished, telemetry: Path | None, here_ms: float) -> Latency:
    """Return how the devices' latency follows from this machine's, by what they told about the hand-made student.

    Args:
        kind: the class.
        run: the finished run, which may have known a telemetry itself.
        telemetry: a file of telemetry; None: the run's.
        here_ms: the hand-made student's latency on this machine.

    Raises:
        ConfigError: the telemetry can't be read.
    """
    path = telemetry
    if path is None and (run.folder / FILE).is_file():
        path = run.folder / FILE
    found = None if path is None else read(path).newest(kind.name, run.task.name, kind.student)
    if found is None or found.latency_ms_p50 is None:
        return Latency(source="this machine", scale=1.0)
    return Latency(source="devices", scale=found.latency_ms_p50 / here_ms)


def _holds(figures: Figures, budget: Budget, scale: float) -> bool:
    scaled = replace(figures, latency_ms=figures.latency_ms * scale)
    return all(excess <= 0 for excess in scaled.violations(budget).values())


def _check_reachable(space: Space, material: Material, budget: Budget, scale: float) -> None:
    """Check that the smallest student of a space holds its budget in some format."""
    shape = space.floor
    state = initial(material.task, str(shape), material.seed)
    with tempfile.TemporaryDirectory() as folder:
        exported = Exported(Path(folder), shape, state, material)
        found = {numeric: exported.figures(numeric, budget, scale) for numeric in space.formats}
    excess = {numeric: max(figures.violations(budget).values(), default=0.0) for numeric, figures in found.items()}
    numeric = min(excess, key=lambda name: excess[name])
    if excess[numeric] > 0:
        raise ConfigError(
            f"nothing that this search tries can meet the budget: what comes nearest, {shape} in {numeric}, takes "
            f"{misses(found[numeric], budget)}"
        )
