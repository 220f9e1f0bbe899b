"""How fast a device computes a student in rounds: what `fedstill client speed` writes and a fleet reads."""

from pathlib import Path

from pydantic import Field

from fedstill.config import Settings, read_json


class Speed(Settings):
    """Samples per second of one student on one machine, with torch on one thread."""

    student: str
    """Architecture."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    classes: int = Field(ge=2, le=65535)
    """Of the task."""
    batch: int = Field(ge=1, le=4096)
    """Samples of an optimizer step."""
    machine: str
    """Model of the board or the processor."""
    train_samples_per_second: float = Field(gt=0, le=1e9)
    """Samples in optimizer steps."""
    predict_samples_per_second: float = Field(gt=0, le=1e9)
    """Predicted samples."""


def read_speed(path: Path) -> Speed:
    """Return what a device's benchmark file says.

    Raises:
        ConfigError: it can't be read or is none.
    """
    return read_json(Speed, path, "no device's speed can be read here", "not what `fedstill client speed` wrote")
