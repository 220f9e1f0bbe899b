"""Programs of an arm64 root file system on emulated cores of a kind: qemu-user behind binfmt_misc, in a chroot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.lab.emulation import cpuinfo

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    # Folders that change under other processes' listings: an emulated import once missed a module that is there.
    "PYTHONDONTWRITEBYTECODE": "1",
    **{name: value for name, value in os.environ.items() if name.startswith("FLWR_")},
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
# ONNX Runtime looks the core up in /proc/cpuinfo, and crashes where that is another processor's.
ENTER = """
set -e
root=$1 cpuinfo=$2 shared=$3
shift 3
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$cpuinfo" "$root/proc/cpuinfo"
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
exec chroot "$root" "$@"
"""


class Board:
    """An emulated board.

    Args:
        rootfs: its root file system.
        shared: a folder that it sees under the same path.
        core: kind of its cores.
    """

    def __init__(self, rootfs: Path, shared: Path, core: str) -> None:
        self.core = core
        self._rootfs, self._shared = rootfs, shared
        self._cpuinfo = shared / f"{core}.cpuinfo"
        self._cpuinfo.write_text(cpuinfo(core))

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs a program there; its mounts end with it."""
        environment = [f"{name}={value}" for name, value in {**ENVIRONMENT, "QEMU_CPU": self.core}.items()]
        places = (str(self._rootfs), str(self._cpuinfo), str(self._shared))
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", *places]
        return [*enter, "env", "-i", *environment, *arguments]

    def python(self, code: str, *arguments: str, timeout: float = 600) -> str:
        """Run Python code there to its end and return what it printed."""
        command = self.command("python3", "-P", "-c", code, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def root_file_system() -> Path:
    """Return the root file system, made or brought up to date; skip the test where that can't be."""
    if os.geteuid() != 0:
        pytest.skip("an arm64 root file system needs root: chroot and mounts")
    missing = [tool for tool in ("qemu-aarch64-static", "mmdebstrap", "arch-test") if shutil.which(tool) is None]
    if missing and shutil.which("apt-get") is None:
        pytest.skip(f"missing: {', '.join(missing)}, and no apt-get to install them with")
    cache = Path(os.environ.get("FEDSTILL_TEST_CACHE") or Path.home() / ".cache" / "fedstill-tests") / "arm64"
    done = subprocess.run(
        [str(REPOSITORY / "scripts" / "arm-rootfs.sh"), str(cache)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return cache / "rootfs"
