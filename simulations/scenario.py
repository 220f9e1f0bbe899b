"""Scenarios: one file says everything about a run; built-in ones lie in `scenarios/`."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from client.executors.settings import CohortSettings
from fedstill.config import Settings, override, parse, read_toml
from fedstill.device_classes import Budget, FormatChoice
from fedstill.errors import ConfigError
from fedstill.loading import nearest
from fedstill.settings import (
    ConsensusSettings,
    DeviceSettings,
    ExchangeSettings,
    FitSettings,
    LearnerKind,
    OwnEncoding,
    StudentSettings,
    TeacherSettings,
)
from simulations.attacks import AttackSettings
from simulations.fleet.settings import FleetSettings, raw_fleet, with_benchmarks
from simulations.stream import StreamSettings

FOLDER = Path(__file__).parent / "scenarios"
NAME = r"^[a-z0-9][a-z0-9_-]*$"


class DataSettings(Settings):
    """How a task's training set is split; test data are never touched."""

    dir: str = ""
    """Folder with parquet files in the layout of the Hugging Face hub; empty: the hub itself, or none needed."""
    server_samples: int = Field(default=0, ge=0)
    """Labelled samples of the server, guard included; none without a teacher."""
    guard_samples: int = Field(default=0, ge=0)
    """Those of them that are held out to judge the teacher's updates."""
    proxy_samples: int = Field(gt=0)
    """Unlabelled samples that all sides share."""
    private_samples: int = Field(default=0, ge=0)
    """Samples of all devices together; 0: all that are left."""


class PartitionSettings(Settings):
    """How private samples are spread over devices."""

    rule: str = "dirichlet"
    """`dirichlet`, `iid`, `one-class`, `shards`, `quantity`, `natural` (by the task's own groups), or
    `file.py:object`."""
    alpha: float = Field(default=0.3, gt=0, le=1e9)
    """Concentration of the Dirichlet distribution of `dirichlet` and `quantity`: small is skewed, a million is even."""
    shards: int = Field(default=2, ge=1)
    """Shards of each device, with `shards`: it holds about as many classes at most."""
    feature_shift: float = Field(default=0.0, ge=0, le=1)
    """How unlike the devices' cameras are: each device's images get a contrast and a brightness of its own."""
    min_samples: int = Field(default=10, ge=1)
    """Samples that each device has at least; with `one-class` and `shards` on average."""


class DeviceClassSettings(Settings):
    """A class of devices."""

    student: str
    """Architecture of its student, built-in or `file.py:object`."""
    share: float = Field(default=1.0, gt=0)
    """Its share of the devices, relative to the other classes."""
    uplink: OwnEncoding = ""
    """Encoding of its soft labels; empty: `exchange.uplink`."""
    downlink: OwnEncoding = ""
    """Encoding of the consensus for it; empty: `exchange.downlink`."""
    learner: LearnerKind = "torch"
    """How its devices learn: `torch` trains the student; `head`, for boards with 512 MB, only a softmax layer on the
    student's int8 features, without torch; `observer` nothing: it answers and measures."""
    budget: Budget | None = None
    """What its release may cost, where that differs from the built-in budget of the class's name."""
    format: FormatChoice = "static-int8"
    """Numeric format of its release: `static-int8`, best for convolutions; `dynamic-int8` for transformers and dense
    students; `float16`, `float32`, `int4`; or `measured`, the best on this machine of those that pass the gate, which
    another machine may find otherwise."""


class MethodSettings(Settings):
    """Who learns how; the overlays in `scenarios/baselines/` set it for the baselines."""

    name: str = "fedstill"
    """The method's name in tables."""
    server: str = ""
    """The server's half, `module:object` or `file.py:object`; empty: consensus, teacher and class students."""
    device: str = ""
    """The device's half, likewise; empty: the device that digests the consensus."""
    sends_weights: bool = False
    """Whether its messages carry model weights by nature."""
    homogeneous: bool = False
    """Whether all devices have to hold the same architecture."""
    gamma: float = Field(default=1.0, ge=0)
    """FD's gamma: weight of the other devices' label vectors in a device's loss."""
    neighbours: int = Field(default=3, ge=1)
    """k of `neighbours`: how many devices, the nearest ones, a device copies labels from."""
    needs_teacher: bool = False
    """Whether it can't do without the scenario's teacher."""
    holds_proxy: bool = False
    """Whether devices of a half of their own hold the proxy set; the product's do."""


class CentralSettings(Settings):
    """The ceiling: students trained on the server's and all private data pooled."""

    fit: FitSettings
    """Supervised training."""


class ReferenceSettings(Settings):
    """What a run is compared with; each costs about as much training as what it stands beside."""

    local_only: int = Field(default=100, ge=0)
    """Devices of each class at most, drawn from the run's seed, that repeat their local training without any exchange;
    0: none. The gain is over the better of the references that are measured."""
    teacher_only: bool = True
    """Whether each class's student is distilled from the initial teacher alone."""
    central: bool = True
    """Whether each class's student is trained on all data pooled."""


class Scenario(Settings):
    """A federated distillation run on virtual devices."""

    name: str = Field(pattern=NAME)
    """Its name, part of the run folder's."""
    task: str
    """What is learned: `module:object` or `file.py:object` of a `fedstill.tasks.Task`."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Everything random derives from it."""
    rounds: int = Field(ge=1, le=100_000)
    """Rounds of soft labels."""
    devices: int = Field(ge=1, le=100_000)
    """Virtual devices, spread over the classes by their shares."""
    method: MethodSettings = MethodSettings()
    data: DataSettings
    partition: PartitionSettings = PartitionSettings()
    stream: StreamSettings = StreamSettings()
    device_classes: dict[str, DeviceClassSettings] = Field(min_length=1)
    teacher: TeacherSettings | None = None
    """The server's model; absent: the devices have no teacher, and the server no labels."""
    device: DeviceSettings
    consensus: ConsensusSettings = ConsensusSettings()
    exchange: ExchangeSettings
    students: StudentSettings
    central: CentralSettings
    references: ReferenceSettings = ReferenceSettings()
    attack: AttackSettings = AttackSettings()
    telemetry: str = ""
    """File that `fedstill server telemetry --out` wrote: what devices told about earlier releases of these students. A
    class whose own devices were slower than its budget is then refused; empty: nothing is known of them."""
    executor: Literal["sequential", "process", "cohort"] = "process"
    """How a host computes its devices: one by one; in worker processes, with the same result; or students of one
    architecture together, with other roundings."""
    cohort: CohortSettings = CohortSettings()
    fleet: FleetSettings | None = None
    """Devices that live in virtual time; a scenario file may name a built-in fleet or a fleet file here. Absent:
    devices take no time and are always there."""

    @field_validator("device_classes")
    @classmethod
    def _names_of_folders(cls, classes: dict[str, DeviceClassSettings]) -> dict[str, DeviceClassSettings]:
        for name in classes:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"{name!r} is no name of a class, which its folder has too: use a-z, 0-9, '-' and '_', the first a"
                    " letter or a digit"
                )
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        if self.exchange.per_round > self.data.proxy_samples:
            raise ValueError("exchange.per_round exceeds data.proxy_samples")
        if self.teacher is None and self.data.server_samples and self.method == MethodSettings():
            # A baseline without a teacher leaves them aside, so that its split is that of the others.
            raise ValueError("data.server_samples are of no use without a teacher: set them to 0 or add [teacher]")
        if self.stream.window and any(kind.learner != "torch" for kind in self.device_classes.values()):
            raise ValueError("stream.window needs devices whose learner is torch")
        if self.teacher is None and self.consensus.rule == "selective-teacher":
            raise ValueError("consensus.rule 'selective-teacher' needs a teacher: add [teacher]")
        if self.teacher is None and self.method.needs_teacher:
            raise ValueError(f"method {self.method.name} needs a teacher: add [teacher]")
        if self.teacher is not None and self.data.guard_samples == 0:
            raise ValueError("a teacher needs data.guard_samples to judge its updates")
        if self.teacher is not None and self.data.guard_samples >= self.data.server_samples:
            raise ValueError("data.guard_samples leave no server sample to train on")
        light = [name for name, kind in self.device_classes.items() if kind.learner != "torch"]
        if light:
            self._check_light(light)
        if self.method.homogeneous and len({kind.student for kind in self.device_classes.values()}) > 1:
            raise ValueError(f"method {self.method.name} needs the same student in all device classes")
        if self.attack.share and (self.exchange.duration or self.exchange.delta):
            raise ValueError("attack.share needs answers that say everything: no exchange.duration, no exchange.delta")
        if self.exchange.active > self.devices:
            raise ValueError(f"exchange.active asks {self.exchange.active} of {self.devices} devices")
        if self.devices < len(self.device_classes):
            raise ValueError(f"{self.devices} devices can't fill {len(self.device_classes)} device classes")
        if self.fleet is not None:
            if self.method.server or self.method.device:
                raise ValueError(
                    f"method {self.method.name} has rounds of its own, which know no virtual time: no fleet"
                )
            self.fleet.check(self.device_classes, self.exchange.active or self.devices, self.quorum)
        return self

    def _check_light(self, light: list[str]) -> None:
        """Check that classes whose devices have no torch can take part."""
        what = f"device_classes.{light[0]}.learner {self.device_classes[light[0]].learner!r}"
        if all(kind.learner == "observer" for kind in self.device_classes.values()):
            raise ValueError("all device classes observe: no device learns anything")
        if self.teacher is None:
            raise ValueError(f"{what} needs a teacher, of which it gets its backbone: add [teacher]")
        if self.method.device:
            raise ValueError(f"{what} is no learner of method {self.method.name}")
        if self.device.certainty != "none":
            raise ValueError(f"{what} knows no certainty {self.device.certainty!r}: set device.certainty to 'none'")

    @property
    def quorum(self) -> int:
        """Answers that a round needs."""
        return max(1, math.ceil(self.exchange.quorum * (self.exchange.active or self.devices)))

    def class_counts(self) -> dict[str, int]:
        """Return the devices of each class: shares by largest remainder, at least one device in each class."""
        names = list(self.device_classes)
        total = sum(kind.share for kind in self.device_classes.values())
        exact = [self.device_classes[name].share / total * self.devices for name in names]
        counts = [max(1, int(share)) for share in exact]
        by_remainder = sorted(range(len(names)), key=lambda place: int(exact[place]) - exact[place])
        while sum(counts) < self.devices:
            for place in by_remainder[: self.devices - sum(counts)]:
                counts[place] += 1
        while sum(counts) > self.devices:
            counts[counts.index(max(counts))] -= 1
        return dict(zip(names, counts, strict=True))

    def classes_of_devices(self) -> list[str]:
        """Return the class of each device: those of a class are numbered one after the other."""
        return [name for name, count in self.class_counts().items() for _ in range(count)]

    def class_of(self, number: int) -> str:
        """Return the class of one device, for which a list of all would be long.

        Raises:
            IndexError: there is no such device.
        """
        for name, count in self.class_counts().items():
            if number < count:
                return name
            number -= count
        raise IndexError(f"no device {number} beyond the last")


def builtin() -> list[str]:
    """Return the names of the built-in scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _absolute(value: Any, folder: Path) -> Any:
    """Make `file.py:object` references of a scenario file absolute, seen from its own folder."""
    if isinstance(value, dict):
        return {key: _absolute(part, folder) for key, part in value.items()}
    if isinstance(value, str) and ".py:" in value and not value.startswith("/"):
        return str((folder / value).resolve())
    return value


def load_scenario(name: str, changes: Iterable[str] = ()) -> Scenario:
    """Load a built-in scenario or a scenario file, with `key=value` changes.

    Args:
        name: a built-in name or a path that ends in `.toml`.
        changes: assignments such as `partition.alpha=0.1`.

    Raises:
        ConfigError: unknown scenario or key, with the nearest valid one, or a value out of range.
    """
    return resolved(raw_scenario(name), changes, f"scenario {name}")


def raw_scenario(name: str) -> dict[str, Any]:
    """Return the values of a built-in scenario or a scenario file, with those of the fleet that it names.

    Raises:
        ConfigError: unknown scenario, or a file that can't be read.
    """
    if name.endswith(".toml"):
        path = Path(name)
    elif name in builtin():
        path = FOLDER / f"{name}.toml"
    else:
        raise ConfigError(f"unknown scenario {name!r}; {nearest(name, builtin())}")
    raw = {**_absolute(read_toml(path), path.parent)}
    if str(raw.get("fleet", "")).endswith(".toml"):
        raw["fleet"] = str((path.parent / raw["fleet"]).resolve())
    _read_fleet(raw, path.parent)
    return raw


def resolved(raw: dict[str, Any], changes: Iterable[str], source: str) -> Scenario:
    """Return the scenario of raw values with `key=value` changes.

    Raises:
        ConfigError: unknown key, with the nearest valid one, or a value out of range.
    """
    _read_fleet(raw, Path.cwd())
    for change in changes:
        override(raw, change)
        _read_fleet(raw, Path.cwd())  # at once, so that later changes may be about parts of it
    return parse(Scenario, _absolute(raw, Path.cwd()), source)


def _read_fleet(raw: dict[str, Any], folder: Path) -> None:
    """Put what the fleet file and the benchmark files say in the place of their names, seen from `folder`."""
    if isinstance(raw.get("fleet"), str):
        raw["fleet"] = raw_fleet(raw["fleet"])
    elif isinstance(raw.get("fleet"), dict):
        raw["fleet"] = with_benchmarks(raw["fleet"], folder)


def dump(scenario: Scenario) -> str:
    """Return a scenario as TOML that `load_scenario` reads back to an equal one."""
    return tomli_w.dumps(scenario.model_dump(exclude_none=True))
