"""Device classes known by name, and what a release may cost on them; a scenario may say otherwise.

Flash is the quantized file alone. RAM of a class that runs ONNX Runtime is the peak of a fresh process with the loaded
student; of a microcontroller, whose runtime is another, the activations that live at once, a byte each.
"""

from typing import Literal

from pydantic import Field

from fedstill.config import Settings

KB, MB = 1000, 1000**2

NumericFormat = Literal["float32", "static-int8", "dynamic-int8", "float16", "int4"]
"""The format of a released student's weights; `server/release/formats` makes each."""
FormatChoice = NumericFormat | Literal["measured"]
"""A format, or `measured`: all that suit the student are tried, and `server/release/candidates.py` has the rule."""


class Budget(Settings):
    """What a release may cost on a device class; what is not set has no limit."""

    flash_bytes: int | None = Field(default=None, gt=0)
    """Bytes of the quantized file."""
    ram_bytes: int | None = Field(default=None, gt=0)
    """Bytes of memory, measured as `ram` says."""
    ram: Literal["process", "activations"] | None = None
    """`process`: peak resident memory of a fresh ONNX Runtime process; `activations`: those alive at once, in int8."""
    parameters: int | None = Field(default=None, gt=0)
    """Trained parameters; counted where a student is searched or released, not on devices."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Milliseconds of one sample; refuses a release only when the class's own devices measured it."""

    def changed_by(self, other: "Budget") -> "Budget":
        """Return this budget with what another one sets."""
        return self.model_copy(update=other.model_dump(exclude_none=True))


BUDGETS = {
    "jetson": Budget(flash_bytes=500 * MB, ram_bytes=1000 * MB, ram="process", latency_ms=10),
    "pi5": Budget(flash_bytes=100 * MB, ram_bytes=500 * MB, ram="process", latency_ms=20),
    "pi4": Budget(flash_bytes=50 * MB, ram_bytes=250 * MB, ram="process", latency_ms=50),
    "zero2w": Budget(flash_bytes=10 * MB, ram_bytes=120 * MB, ram="process", latency_ms=100),
    "mcu": Budget(flash_bytes=512 * KB, ram_bytes=96 * KB, ram="activations", parameters=86_000, latency_ms=500),
}


def budget_of(device_class: str, changes: Budget | None = None) -> Budget:
    """Return a class's budget: the built-in one of its name, if any, with a scenario's changes."""
    return BUDGETS.get(device_class, Budget()).changed_by(changes or Budget())
