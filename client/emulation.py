"""Whether an emulator runs this program: what is measured then are no board's times."""

import platform
from pathlib import Path


def emulated(root: Path = Path("/")) -> bool:
    """Return whether the kernel is another processor's than this program; it says so itself, from Linux 6.1 on."""
    try:
        kernel = (root / "proc" / "sys" / "kernel" / "arch").read_text().strip()
    except OSError:
        return False
    return {kernel, platform.machine()} == {"x86_64", "aarch64"}
