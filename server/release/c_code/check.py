"""What the C sources of a student are worth: compiled with all warnings as errors, run, and measured."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedstill.errors import ExportError
from server.release.c_code.write import SELF_TEST, SOURCE

FLAGS = ("-std=c11", "-Os", "-Wall", "-Werror")
FIXED = "-fno-pie"
"""As on a board: where a program may lie anywhere, constants that hold addresses are variables to its loader."""
PATIENCE = 120  # seconds for the compiler and for the self-test


@dataclass(frozen=True)
class Compiled:
    """Static memory of a compiled student; there is no other but the stack of its calls.

    Attributes:
        flash_bytes: code and constants, by the compiler of this machine.
        ram_bytes: variables, the arena among them.
    """

    flash_bytes: int
    ram_bytes: int


def compiler() -> list[str] | None:
    """Return the command of this machine's C compiler: `CC` if it is there, else `cc`; None: there is none."""
    for name, *options in (shlex.split(os.environ.get("CC", "")) or ["cc"], ["cc"]):
        if (found := shutil.which(name)) is not None:
            return [found, *options]
    return None


def compile_and_run(folder: Path, command: Sequence[str]) -> Compiled:
    """Compile the sources of a folder, run their self-test and measure their static memory.

    Args:
        folder: holds what `write` wrote.
        command: the C compiler, and options of its own.

    Raises:
        ExportError: they don't compile, or answer otherwise than ONNX Runtime.
    """
    with tempfile.TemporaryDirectory() as temporary:
        program, part = str(Path(temporary) / "selftest"), str(Path(temporary) / "student.o")
        _run([*command, *FLAGS, str(folder / SOURCE), str(folder / SELF_TEST), "-o", program])
        _run([program])
        _run([*command, *FLAGS, FIXED, "-c", str(folder / SOURCE), "-o", part])
        size = shutil.which("size")
        if size is None:
            raise ExportError("C code: the binutils' `size` is missing beside the compiler")
        text, data, bss = (int(field) for field in _run([size, "-B", part]).splitlines()[1].split()[:3])
        return Compiled(flash_bytes=text + data, ram_bytes=data + bss)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"C code: {Path(command[0]).name}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
        raise ExportError(f"C code: {Path(command[0]).name}: {lines[0]}")
    return done.stdout
