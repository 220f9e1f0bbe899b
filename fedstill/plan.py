"""What a run tells its devices before the first round: data alone, never code to load.

The server writes it into the run configuration, the ClientApp hands it on, and the device's agent reads it. It comes
over the wire, so it is parsed like everything else that does, and names nothing but built-in architectures.
"""

from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from fedstill.config import Settings
from fedstill.errors import ConfigError, DataError
from fedstill.settings import DeviceSettings, Encoding, LearnerKind
from fedstill.tasks import Arrays, Task

RUN_NAME = r"[a-z0-9][a-z0-9-]{0,63}"
"""What a run may be called: a device names a folder after it."""
DIGEST_BYTES = 8
MAX_JSON = 256 * 1024  # characters


class TaskPlan(Settings):
    """A `fedstill.tasks.Task` without the code that loads its data."""

    name: str = Field(max_length=200)
    """Its name."""
    label_names: tuple[str, ...] = Field(min_length=2, max_length=10_000)
    """Names of the classes, in the order of their indices."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of an image in pixels."""
    mean: tuple[float, ...]
    """By channel, of pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """By channel, likewise."""
    flip: bool = False
    """Whether mirrored images keep their label."""
    shift: int = Field(default=0, ge=0, le=1000)
    """Pixels by which images may be shifted."""

    @classmethod
    def of(cls, task: Task) -> "TaskPlan":
        """Return what devices need to know of a task."""
        return cls(
            name=task.name,
            label_names=task.label_names,
            input_shape=task.input_shape,
            mean=task.mean,
            std=task.std,
            flip=task.flip,
            shift=task.shift,
        )

    def task(self) -> Task:
        """Return the task, whose data are the device's own."""
        return Task(
            name=self.name,
            label_names=self.label_names,
            input_shape=self.input_shape,
            load=_nothing,
            mean=self.mean,
            std=self.std,
            flip=self.flip,
            shift=self.shift,
        )


class ClassPlan(Settings):
    """What devices of a class run."""

    student: str
    """Name of a built-in architecture."""
    uplink: Encoding
    """Encoding of their soft labels."""
    learner: LearnerKind | None = None
    """How they learn; None: in torch."""
    backbone: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the backbone's file, for learners without torch."""

    @model_validator(mode="after")
    def _has_a_backbone(self) -> "ClassPlan":
        if (self.learner or "torch") != "torch" and self.backbone is None:
            raise ValueError(f"no backbone for the learner {self.learner!r}")
        return self


class DevicePlan(Settings):
    """What all devices of a run have to know."""

    seed: int = Field(ge=0, lt=2**32)
    """Run seed."""
    task: TaskPlan
    proxy_digest: str = Field(pattern=r"^[0-9a-f]{16}$")
    """First 8 bytes of the SHA-256 of the proxy set's file, in hexadecimal digits."""
    proxy_size: int = Field(gt=0, lt=2**31)
    """Samples in the proxy set."""
    device: DeviceSettings
    """How a device learns."""
    classes: dict[str, ClassPlan] = Field(min_length=1)
    """What each device class runs."""
    entropy_coding: bool = False
    """Whether soft labels are coded adaptively."""
    delta: bool = False
    """Whether they refer to what the server holds."""

    @classmethod
    def read(cls, content: str) -> "DevicePlan":
        """Read a plan that came over the wire.

        Raises:
            ConfigError: it is too long, no JSON, or breaks a rule of its fields.
        """
        if len(content) > MAX_JSON:
            raise ConfigError(f"the run's plan has {len(content)} characters, more than {MAX_JSON}")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"the run's plan: {place}: {first['msg']}") from error


def _nothing(folder: Path | None) -> Arrays:
    raise DataError("the data of a plan's task are those of the device")
