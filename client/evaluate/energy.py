"""Energy meters that this machine may have; one without any says why it has none.

* Raspberry Pi 5: the currents and voltages of its power controller's rails, `vcgencmd pmic_read_adc`
* INA2xx and INA3221 sensors (Jetson, power HATs) in /sys/class/hwmon
* x86: RAPL, the energy counters of the processor packages in /sys/class/powercap
"""

import re
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

EVERY = 0.05  # seconds between readings of a sensor that tells watts
COUNTED = 10.0  # and of a counter, which takes minutes at least to begin anew
RAILS = re.compile(r"(\w+)_([AV])\b[^=\n]*=\s*([0-9.]+)")
INA = re.compile(r"ina\d{3,4}")
WHOLE_BOARD = "VDD_IN"  # the rail of a Jetson that all others hang on


class Meter(ABC):
    """Something that tells energy.

    Attributes:
        name: of the sensor.
        covers: what of the machine it measures.
    """

    def __init__(self, name: str, covers: str) -> None:
        self.name, self.covers = name, covers

    @abstractmethod
    def joules(self, work: Callable[[], None]) -> float:
        """Return the energy that was taken while `work` ran.

        Raises:
            OSError: the sensor can't be read any more.
        """


class Counter(Meter):
    """A counter of microjoules that begins anew at its range.

    Args:
        folders: of /sys/class/powercap, one per processor package.
    """

    def __init__(self, folders: list[Path]) -> None:
        super().__init__("RAPL", "processor packages")
        self._folders = folders
        self._ranges = [int((folder / "max_energy_range_uj").read_text()) for folder in folders]

    def joules(self, work: Callable[[], None]) -> float:
        """Return the energy that was taken while `work` ran, however often the counters began anew."""
        readings = [self._read()]
        _meanwhile(work, COUNTED, lambda: readings.append(self._read()))
        readings.append(self._read())
        spent = 0
        for earlier, later in pairwise(readings):
            spent += sum((end - begin) % span for begin, end, span in zip(earlier, later, self._ranges, strict=True))
        return spent / 1e6

    def _read(self) -> list[int]:
        return [int((folder / "energy_uj").read_text()) for folder in self._folders]


class Gauge(Meter):
    """A sensor that tells watts: their mean over many readings, times the time.

    Args:
        name: of the sensor.
        covers: what it measures.
        watts: reads it.
    """

    def __init__(self, name: str, covers: str, watts: Callable[[], float]) -> None:
        super().__init__(name, covers)
        self._watts = watts

    def joules(self, work: Callable[[], None]) -> float:
        """Return the energy that was taken while `work` ran."""
        readings = [self._watts()]
        took = _meanwhile(work, EVERY, lambda: readings.append(self._watts()))
        return took * sum(readings) / len(readings)


def _meanwhile(work: Callable[[], None], every: float, read: Callable[[], None]) -> float:
    """Do some work, with a reading every so many seconds beside it, and return the seconds that it took.

    Raises:
        OSError: of a reading.
    """
    failures, ended = list[OSError](), threading.Event()

    def reads() -> None:
        try:
            while not ended.wait(every):
                read()
        except OSError as error:
            failures.append(error)

    reader = threading.Thread(target=reads, daemon=True)
    begin = time.monotonic()
    reader.start()
    try:
        work()
    finally:
        took = time.monotonic() - begin
        ended.set()
        reader.join()
    if failures:
        raise failures[0]
    return took


def find(root: Path = Path("/")) -> tuple[Meter | None, str]:
    """Return this machine's meter, or None and why it has none.

    Args:
        root: below which /sys and /proc lie.
    """
    reasons = []
    for look in (_pmic, _ina, _rapl):
        try:
            return look(root), ""
        except (OSError, ValueError) as error:
            reasons.append(str(error))
    return None, "; ".join(reasons)


def _pmic(root: Path) -> Meter:
    """Return the meter of a Raspberry Pi 5's power controller.

    Raises:
        OSError: there is none.
    """
    program = shutil.which("vcgencmd")
    if program is None:
        raise OSError("no vcgencmd (Raspberry Pi 5)")

    def watts() -> float:
        try:
            told = subprocess.run([program, "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=True)
        except subprocess.SubprocessError as error:
            raise OSError("vcgencmd pmic_read_adc fails (only a Raspberry Pi 5 has it)") from error
        return power_of(told.stdout)

    if watts() <= 0:
        raise OSError("vcgencmd pmic_read_adc tells no currents (only a Raspberry Pi 5 does)")
    return Gauge("PMIC", "rails of the board's power controller, without its own losses and USB", watts)


def power_of(told: str) -> float:
    """Return the watts of all rails whose current and voltage `vcgencmd pmic_read_adc` tells."""
    rails: dict[str, dict[str, float]] = {}
    for rail, unit, value in RAILS.findall(told):
        rails.setdefault(rail, {})[unit] = float(value)
    return sum(found["A"] * found["V"] for found in rails.values() if len(found) == 2)


def _ina(root: Path) -> Meter:
    """Return the meter of the first INA sensor.

    Raises:
        OSError: there is none.
    """
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = (folder / "name").read_text().strip() if (folder / "name").exists() else ""
        if not INA.fullmatch(name):
            continue
        power = folder / "power1_input"
        if power.exists():
            return Gauge(name.upper(), "what hangs on the sensor", lambda power=power: int(power.read_text()) / 1e6)  # type: ignore[misc]
        labels = {path.name[2:-6]: path.read_text().strip() for path in sorted(folder.glob("in*_label"))}
        channel = next((number for number, label in labels.items() if label == WHOLE_BOARD), "1")
        volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        if volts.exists() and amperes.exists():
            covers = f"rail {labels.get(channel, channel)}"
            return Gauge(name.upper(), covers, lambda a=volts, b=amperes: int(a.read_text()) * int(b.read_text()) / 1e6)  # type: ignore[misc]
    raise OSError("no INA sensor in /sys/class/hwmon")


def _rapl(root: Path) -> Meter:
    """Return the meter of the processor packages.

    Raises:
        OSError: there is none, or this user may not read it.
    """
    domains = (root / "sys/class/powercap").glob("intel-rapl:*")
    folders = [place for place in sorted(domains) if (place / "name").read_text().startswith("package")]
    if not folders:
        raise OSError("no RAPL counters in /sys/class/powercap")
    try:
        (folders[0] / "energy_uj").read_text()
    except PermissionError as error:
        raise OSError("RAPL counters in /sys/class/powercap that only root may read") from error
    return Counter(folders)
