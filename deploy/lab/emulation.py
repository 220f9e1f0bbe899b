"""Devices whose image is for another processor: arm64 under qemu-user, as the cores that a class's boards have.

What runs are the board's instructions; how fast a board is, emulation does not tell. Emulators take memory of their
own, within the container's limit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from fedstill.folders import data_folder

DOCKERS = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Docker's images call a machine."""
CORES = {
    # part of /proc/cpuinfo, and the features that a Raspberry Pi's kernel tells of
    "cortex-a53": ("0xd03", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a72": ("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
OF_CLASS = {"zero2w": "cortex-a53", "pi4": "cortex-a72", "pi5": "cortex-a76", "jetson": "cortex-a76"}
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")


def cpuinfo(core: str, count: int = 4) -> str:
    """Return what /proc/cpuinfo says on a board with cores of a kind."""
    part, features = CORES[core]
    lines = (
        f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
    )
    return "".join(f"processor\t: {number}\n{lines}\n" for number in range(count))


def options(image: str, architecture: str, machine: str, kind: str, folder: Path) -> Mapping[str, Any]:
    """Return what a container needs beyond its limits to run an image; nothing where the image is this machine's.

    Args:
        image: its name, for the error.
        architecture: of the image, as Docker calls it.
        machine: of the Docker daemon's machine, as its kernel calls it.
        kind: the device's class.
        folder: where the file lies that containers see as /proc/cpuinfo: ONNX Runtime looks the core up there, and
            crashes where that is another processor's.

    Raises:
        ConfigError: nothing here runs the image.
    """
    if DOCKERS.get(machine, machine) == architecture:
        return {}
    if architecture != "arm64" or not BINFMT.exists():
        raise ConfigError(
            f"image {image} is for {architecture}, this machine is {machine}"
            + ("; on Debian, `apt install qemu-user-static` lets it run" if architecture == "arm64" else "")
        )
    core = OF_CLASS[kind]
    path = folder / f"{core}.cpuinfo"
    write_atomic(path, cpuinfo(core).encode())
    return {
        "environment": {"QEMU_CPU": core},
        "volumes": {str(path): {"bind": "/proc/cpuinfo", "mode": "ro"}},
        "platform": "linux/arm64",
    }


def default_folder() -> Path:
    """Return where the lab keeps files of its own on this machine.

    Raises:
        ConfigError: neither XDG_DATA_HOME is set nor has the user a home.
    """
    return data_folder("lab", "the lab's files", "set XDG_DATA_HOME")
