"""What a search runs: written into its folder once all that can be wrong is checked, and read to resume it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from fedstill.config import Settings, parse, read_toml
from fedstill.device_classes import Budget, NumericFormat, budget_of
from fedstill.errors import ConfigError, RunFolderError
from fedstill.loading import nearest
from fedstill.models.shapes import FAMILIES, Shape, shape_of
from simulations.compress import LEAST_STEPS, MOST_TRIALS
from simulations.scenario import NAME, Scenario

PLAN = "compress.toml"


class ClassFile(Settings):
    """A device class in a file of its own, for a board that the run did not have."""

    name: str = Field(pattern=NAME)
    """The class's name."""
    format: NumericFormat = "static-int8"
    """The hand-made student's numeric format."""
    student: str
    """The hand-made student around which the search goes: an architecture of the convolutional families."""
    budget: Budget
    """What its release may cost, where that differs from the built-in budget of the name, if it has one."""


class Latency(Settings):
    """Where latencies come from."""

    source: Literal["devices", "this machine"]
    """`devices`: measured here, times `scale`."""
    scale: float = Field(gt=0)
    """Latency of the hand-made student that its devices told, over this machine's; 1 where they told none."""


class CompressPlan(Settings):
    """A search."""

    run: str
    """Absolute folder of the finished run."""
    device_class: str
    """The class's name."""
    student: str
    """Its hand-made student."""
    budget: Budget
    """What a student may cost."""
    trials: int = Field(ge=1, le=MOST_TRIALS)
    """Candidates to try, the hand-made one included."""
    steps: int = Field(ge=LEAST_STEPS)
    """Optimizer steps of each candidate's distillation."""
    formats: tuple[NumericFormat, ...] = Field(min_length=1)
    """Numeric formats that suit the class and its student, the class's own first."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Formats that don't, with the reason."""
    latency: Latency
    """Where latencies come from."""

    @property
    def shape(self) -> Shape:
        """The hand-made student's shape.

        Raises:
            ConfigError: it is of no family.
        """
        return searchable(self.student)


def class_of(name: str, scenario: Scenario) -> ClassFile:
    """Return a class of a scenario, or of a class file; its budget is the whole of it.

    Args:
        name: of a class, or the path of a file that ends in `.toml`.
        scenario: of the run.

    Raises:
        ConfigError: the run has no such class, the file can't be read or is no class's, or its student can't be
            searched.
    """
    if name.endswith(".toml"):
        found = parse(ClassFile, read_toml(Path(name)), name)
        searchable(found.student)
        return found.model_copy(update={"budget": budget_of(found.name, found.budget)})
    if name not in scenario.device_classes:
        raise ConfigError(
            f"no device class {name!r} in scenario {scenario.name}; {nearest(name, scenario.device_classes)}; "
            "a class of your own is a file: fedstill compress my-board.toml"
        )
    kind = scenario.device_classes[name]
    searchable(kind.student)
    own: NumericFormat = "static-int8" if kind.format == "measured" else kind.format
    return ClassFile(name=name, student=kind.student, format=own, budget=budget_of(name, kind.budget))


def searchable(student: str) -> Shape:
    """Return the shape of a hand-made student.

    Raises:
        ConfigError: it is of no family, so that it has no widths to search.
    """
    shape = shape_of(student)
    if shape is None:
        raise ConfigError(
            f"student {student!r} can't be searched: its widths are its own; "
            f"give the class a student of the families {', '.join(FAMILIES)}"
        )
    return shape


def read_plan(out: Path) -> CompressPlan:
    """Return the plan of the search in a folder.

    Raises:
        RunFolderError: there is none.
        ConfigError: it can't be read.
    """
    if not (out / PLAN).is_file():
        raise RunFolderError(f"{out}: no search to resume here ({PLAN} is missing)")
    return parse(CompressPlan, read_toml(out / PLAN), str(out / PLAN))
