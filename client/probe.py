"""What this machine is, and which device class fits it, with the reason: from /proc, /etc and what is installed."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.emulation import emulated
from fedstill.errors import ConfigError

TRAINING_MB = 700
"""Memory that torch, a small student and Flower's processes take together; 512 MB boards have less."""
BROKEN_ON_ARMV8_0 = "2.10"
"""This release of torch dies with an illegal instruction on cores without the extensions of ARMv8.2 (A53, A72)."""
TELLING = ("asimddp", "i8mm", "sve", "bf16", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")
"""Features of a core that decide how fast int8 and small matrices are, as /proc/cpuinfo names them."""
PROPOSED = ("jetson", "pi5", "pi4", "zero2w")
"""Device classes that `propose` knows, the strongest first."""
FIRST_CUDA = (2, 11)
"""From here on PyPI's torch for ARM is a CUDA build that can't be imported without CUDA."""


@dataclass(frozen=True)
class Machine:
    """What a machine tells about itself.

    Attributes:
        model: of the board or the processor.
        architecture: as `uname -m` says, of the kernel.
        cores: that this process may use.
        features: of a core.
        memory_mb: of the whole machine.
        packages: versions of what matters, by name; missing: not installed.
        bits: of an address in this Python: a kernel of 64 bits may run a system of 32.
        system: name and version of the operating system.
        providers: what ONNX Runtime can compute on, its first choice first; empty: nothing; None: nobody looked.
        emulated: whether the kernel is another processor's than this program is for: times are no board's then.
    """

    model: str
    architecture: str
    cores: int
    features: frozenset[str]
    memory_mb: int
    packages: dict[str, str]
    bits: int = 64
    system: str = "unknown"
    providers: tuple[str, ...] | None = None
    emulated: bool = False


@dataclass(frozen=True)
class Proposal:
    """A device class for a machine.

    Attributes:
        device_class: its name; empty: none fits.
        reason: why.
    """

    device_class: str
    reason: str


def look(root: Path = Path("/")) -> Machine:
    """Return what the machine whose /proc lies below `root` tells about itself."""
    info = _text(root / "proc" / "cpuinfo")
    memory = next(
        (line.split()[1] for line in _text(root / "proc" / "meminfo").splitlines() if "MemTotal" in line), "0"
    )
    board = _text(root / "proc" / "device-tree" / "model").strip("\0\n ")
    return Machine(
        model=board or _field(info, "model name") or "unknown",
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        features=frozenset((_field(info, "Features") or _field(info, "flags")).split()),
        memory_mb=int(memory) // 1024,
        packages={name: found for name in ("flwr", "onnxruntime", "torch") if (found := _version(name))},
        bits=64 if sys.maxsize > 2**32 else 32,
        system=_system(_text(root / "etc" / "os-release")),
        emulated=emulated(root),
    )


def propose(machine: Machine) -> Proposal:
    """Return the class that fits a machine."""
    if machine.architecture not in ("aarch64", "x86_64") or machine.bits != 64:
        kind = f"{machine.architecture} with a system of {machine.bits} bits"
        return Proposal("", f"{kind}: there is no ONNX Runtime or torch for it; install a 64-bit system")
    if machine.memory_mb < TRAINING_MB:
        return Proposal("zero2w", f"{machine.memory_mb} MB of memory are too few to train with torch")
    if machine.architecture == "x86_64":
        return Proposal("pi5", f"{machine.cores} cores with {machine.memory_mb} MB can do what the strongest class can")
    if "Jetson" in machine.model:
        return Proposal("jetson", f"the board is a {machine.model}")
    if "asimddp" in machine.features:
        return Proposal("pi5", "the cores have int8 dot products (asimddp)")
    return Proposal("pi4", "64-bit cores without int8 dot products (no asimddp)")


def misfit(machine: Machine, device_class: str) -> str:
    """Say that a machine is weaker than the class that it is to be; empty: it isn't, or nothing is known of the class.

    Args:
        machine: what it tells about itself.
        device_class: what its token says that it is.
    """
    proposal = propose(machine)
    strong = machine.architecture == "x86_64" and machine.memory_mb >= TRAINING_MB
    if strong or device_class not in PROPOSED or proposal.device_class not in PROPOSED:
        return ""
    if PROPOSED.index(device_class) >= PROPOSED.index(proposal.device_class):
        return ""
    return f"this machine looks like class {proposal.device_class}, weaker than {device_class}: {proposal.reason}"


def telling(machine: Machine) -> tuple[str, ...]:
    """Return those of the cores' features that decide how fast int8 and small matrices are."""
    return tuple(name for name in TELLING if name in machine.features)


def obstacles(machine: Machine) -> list[str]:
    """Return what a device can't run with on a machine, each with what to do."""
    found = []
    if machine.bits != 64:
        found.append(f"this is a system of {machine.bits} bits, for which there is no ONNX Runtime: install one of 64")
    torch = machine.packages.get("torch", "")
    release = tuple(int(part) for part in torch.split("+")[0].split(".")[:2] if part.isdigit())
    arm = machine.architecture == "aarch64"
    if arm and torch.startswith(f"{BROKEN_ON_ARMV8_0}.") and "asimddp" not in machine.features:
        found.append(f"torch {torch} dies with an illegal instruction on these cores: pip install 'torch>=2.8,<2.10'")
    if arm and release >= FIRST_CUDA and "Jetson" not in machine.model and "+cpu" not in torch:
        found.append(f"torch {torch} from PyPI is a CUDA build on ARM: pip install 'torch>=2.8,<2.10'")
    return found


def check_machine() -> None:
    """Make sure that a device can run here.

    Raises:
        ConfigError: it can't, with the reason and what to do.
    """
    if found := obstacles(look()):
        raise ConfigError(found[0])


def troubles(machine: Machine) -> list[str]:
    """Return what is wrong or missing on a machine, each with what to do."""
    found = obstacles(machine)
    for name, extra in (("flwr", "edge"), ("onnxruntime", "edge"), ("torch", "edge-train")):
        needed = name != "torch" or machine.memory_mb >= TRAINING_MB  # smaller ones learn without
        if needed and name not in machine.packages:
            found.append(f"{name} is not installed: install the extra {extra}")
    if "onnxruntime" in machine.packages and machine.providers == ():
        found.append("onnxruntime is installed but can't be imported: install it anew")
    return found


def _system(release: str) -> str:
    names = (line.partition("=") for line in release.splitlines())
    return next((value.strip().strip('"') for key, _, value in names if key == "PRETTY_NAME"), platform.system())


def providers() -> tuple[str, ...]:
    """Return what ONNX Runtime can compute on, empty if it can't be imported; it stays in memory."""
    try:
        import onnxruntime
    except (ImportError, OSError):
        return ()
    return tuple(onnxruntime.get_available_providers())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(info: str, name: str) -> str:
    """Return the first value of a field of /proc/cpuinfo."""
    found = (line.partition(":") for line in info.splitlines())
    return next((value.strip() for key, _, value in found if key.strip() == name), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
