"""What a container of the lab may use, by device class."""

from collections.abc import Iterable
from dataclasses import dataclass

from fedstill.errors import ConfigError
from fedstill.loading import nearest

MAX_DEVICES = 64


@dataclass(frozen=True)
class Board:
    """The limits of a container that stands for a board.

    Attributes:
        memory_mb: megabytes (2^20 bytes) of memory, as the class's smallest board has; there is no swap.
        cpus: cores of this machine. Faster classes get more of them; it says nothing about the speed of a real board.
        torch: whether torch fits; what has none learns by `head`, or observes.
    """

    memory_mb: int
    cpus: float
    torch: bool = True


BOARDS = {
    "jetson": Board(memory_mb=4096, cpus=2.0),
    "pi5": Board(memory_mb=2048, cpus=2.0),
    "pi4": Board(memory_mb=1024, cpus=1.0),
    "zero2w": Board(memory_mb=512, cpus=0.5, torch=False),
}


def read_fleet(words: Iterable[str]) -> list[str]:
    """Return the class of each device that words such as `pi5=1` ask for, in their order.

    Raises:
        ConfigError: a word has not that form, its class is unknown or no board, or there are none or too many.
    """
    fleet: list[str] = []
    for word in words:
        name, separator, count = word.partition("=")
        if not separator or not count.isdecimal():
            raise ConfigError(f"{word!r}: not of the form CLASS=COUNT, for example pi4=2")
        if name not in BOARDS:
            hint = "a microcontroller runs no container" if name == "mcu" else nearest(name, sorted(BOARDS))
            raise ConfigError(f"{word!r}: the lab has no class {name}; {hint}")
        fleet += [name] * min(int(count), MAX_DEVICES + 1)
    if not 0 < len(fleet) <= MAX_DEVICES:
        raise ConfigError(
            f"{'no' if not fleet else 'too many'} devices; a lab has 1 to {MAX_DEVICES}, for example pi4=2"
        )
    return fleet
