"""The trial of a release that has arrived and is trusted: does it answer as it should here, and which file is faster?

Everything runs in processes of their own, so a model that crashes or hangs takes nothing with it. A release whose own
file fails is refused; a float file that fails is only not chosen.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.predict.student import Student, runtime_version
from fedstill.device_classes import Budget
from fedstill.errors import ReleaseError
from fedstill.release.manifest import Manifest
from fedstill.release.selftest import self_test

WARM_UP, REPEATS = 20, 200  # single predictions
SECONDS = 10.0  # in which a benchmark ends, however slow the model
FASTER = 0.9  # times the latency: what another file must reach to be chosen, so that noise chooses nothing


@dataclass(frozen=True)
class Measured:
    """What a model file costs on this device.

    Attributes:
        milliseconds: of single predictions, ascending.
        peak_rss: bytes of a fresh process that ran it.
    """

    milliseconds: tuple[float, ...]
    peak_rss: int

    @property
    def median(self) -> float:
        """Median milliseconds of one sample."""
        return statistics.median(self.milliseconds)


@dataclass(frozen=True)
class Chosen:
    """The file that a device will run.

    Attributes:
        file: its name.
        measured: what it costs.
        detail: the choice in words.
    """

    file: str
    measured: Measured
    detail: str


Trial = Callable[[Path, Manifest], Chosen]


def try_release(folder: Path, manifest: Manifest) -> Chosen:
    """Try a release, and return which of its files to run.

    Args:
        folder: the release, verified.
        manifest: its manifest.

    Raises:
        ReleaseError: the runtime is too old, or its own file has no self-test, fails it or misses the class's budget.
    """
    least, have = manifest.runtime.onnxruntime_minimum, runtime_version()
    if _numbers(have) < _numbers(least):
        raise ReleaseError(f"needs ONNX Runtime {least} or newer, this device has {have}")
    if manifest.artifact not in manifest.self_test.expected or not manifest.self_test.shape[0]:
        raise ReleaseError(f"{manifest.artifact}: its manifest holds no self-test of it")
    budget = manifest.budget
    best, details = manifest.artifact, []
    results = {best: measure(folder, manifest, best, budget)}
    for name in sorted(manifest.self_test.expected.keys() - {best}):
        try:
            results[name] = measure(folder, manifest, name, budget)
        except ReleaseError as error:
            details.append(f"{name} not chosen: {error}")
            continue
        if results[name].median < FASTER * results[best].median:
            best = name
    details[:0] = [f"{name} {found.median:.3g} ms" for name, found in results.items()]
    if budget.latency_ms is not None and results[best].median > budget.latency_ms:
        details.append(f"over the class's budget of {budget.latency_ms:g} ms")
    return Chosen(best, results[best], "; ".join(details))


def measure(folder: Path, manifest: Manifest, name: str, budget: Budget) -> Measured:
    """Self-test and benchmark one file.

    Raises:
        ReleaseError: it fails its self-test, or misses the budget of flash or memory.
    """
    size = manifest.files[name].bytes
    if budget.flash_bytes is not None and size > budget.flash_bytes:
        raise ReleaseError(f"{name}: {size} bytes, the class's budget is {budget.flash_bytes}")
    peak = self_test(folder, manifest, name).peak_rss_bytes
    if budget.ram == "process" and budget.ram_bytes is not None and peak > budget.ram_bytes:
        raise ReleaseError(f"{name}: {peak / 1e6:.0f} MB of memory, the class's budget is {budget.ram_bytes / 1e6:.0f}")
    images = [image.tobytes() for image in manifest.self_test.pixels()]
    student = Student(folder, name, {})
    try:
        return Measured(benchmark(student, images), peak)
    finally:
        student.close()


def benchmark(student: Student, images: Sequence[bytes]) -> tuple[float, ...]:
    """Return the milliseconds of single predictions, ascending.

    Args:
        student: loaded.
        images: uint8 pixels of each, asked in turn.
    """
    until, times = time.monotonic() + SECONDS, list[float]()
    for place in range(WARM_UP + REPEATS):
        times.append(student.answer(images[place % len(images)]).milliseconds)
        if time.monotonic() > until:
            break
    return tuple(sorted(times[WARM_UP:] or times[-1:]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
