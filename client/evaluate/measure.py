"""What a model costs on this machine, and what it knows of labelled images, clean and disturbed."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.data import Labelled
from client.evaluate.energy import Meter
from client.evaluate.model import Bench
from fedstill.disturb import disturbed, suited
from fedstill.errors import ConfigError
from fedstill.release.manifest import Normalization
from fedstill.soft_labels import Ints
from fedstill.tasks import Images

WARM_UP, REPEATS = 20, 2000  # single predictions
PERCENTILES = (50, 90, 99)
DISTURBED = 500  # samples at most


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        path: an ONNX file.
        how: makes inputs of images.
        classes: number of its logits.
        images: uint8 `[samples, channels, height, width]` that it is timed on.
    """

    path: Path
    how: Normalization
    classes: int
    images: Images


@dataclass(frozen=True)
class Effort:
    """How long a measurement takes.

    Attributes:
        seconds: of each timing, at most, and of each reading of a sensor.
        batch: images predicted at once for the throughput.
    """

    seconds: float = 5.0
    batch: int = 32


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one prediction, the image's normalization included."""

    p50: float
    p90: float
    p99: float
    predictions: int


@dataclass(frozen=True)
class Power:
    """What the predictions of one image after another on one thread take.

    Attributes:
        sensor: that told it.
        covers: what of the machine it measures.
        idle_watts: with the model loaded and nothing to do.
        watts: while it predicts.
        millijoules: of one prediction, above idle; None: not above it, which is the noise of a busy machine.
    """

    sensor: str
    covers: str
    idle_watts: float
    watts: float
    millijoules: float | None


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        bytes: of its file.
        peak_rss_bytes: of a fresh process that loaded it and predicted single images, interpreter and runtime included.
        model_rss_bytes: what of that came with the model.
        latency_ms: by threads: one, and all that this process may use.
        threads: that is all of them.
        samples_per_second: in batches, with all threads.
        power: None: no sensor.
        onnxruntime: version of what ran it.
    """

    bytes: int
    peak_rss_bytes: int
    model_rss_bytes: int
    latency_ms: Mapping[str, Latency]
    threads: int
    samples_per_second: float
    power: Power | None
    onnxruntime: str


@dataclass(frozen=True)
class Knowledge:
    """What a model knows of labelled images.

    Attributes:
        samples: that is how many.
        accuracy: a fraction.
        disturbed_samples: a part of them, evenly spread.
        disturbed: accuracy on that part by disturbance and level; level 0 is clean.
    """

    samples: int
    accuracy: float
    disturbed_samples: int
    disturbed: Mapping[str, Mapping[str, float]]


def measure(
    model: Model, effort: Effort, meter: Meter | None, samples: Labelled | None, seed: int = 0
) -> tuple[Cost, Knowledge | None]:
    """Measure what a model costs, and what it knows where there are labelled samples, in processes of its own.

    Args:
        model: the model.
        effort: how long it takes.
        meter: of energy; None: this machine has none.
        samples: labelled images, at least one; None: there are none.
        seed: of the disturbances.

    Raises:
        ReleaseError: it can't be loaded, crashed, hung, or answers something other than logits.
        ConfigError: the sensor can't be read any more.
    """
    most = len(os.sched_getaffinity(0))
    with Bench(model.path, model.how, model.classes, 1) as bench:
        one = _latency(bench, model.images, effort)
        peak, own, version = bench.peak_rss, bench.peak_rss - bench.empty_rss, bench.onnxruntime
        power = None if meter is None else _power(bench, model.images, effort.seconds, meter)
    with Bench(model.path, model.how, model.classes, most) as bench:
        every = one if most == 1 else _latency(bench, model.images, effort)
        count, seconds = bench.batches(model.images, effort.batch, effort.seconds)
        known = None if samples is None else _knowledge(bench, samples, seed)
    latencies = {"1": one, str(most): every}
    return Cost(model.path.stat().st_size, peak, own, latencies, most, count / seconds, power, version), known


def _latency(bench: Bench, images: Images, effort: Effort) -> Latency:
    found = bench.single(images, WARM_UP, REPEATS, effort.seconds)
    p50, p90, p99 = (float(value) for value in np.percentile(found, PERCENTILES))
    return Latency(p50, p90, p99, len(found))


def _power(bench: Bench, images: Images, seconds: float, meter: Meter) -> Power:
    taken: dict[str, float] = {}

    def spent(name: str, work: Callable[[], None]) -> float:
        begin = time.monotonic()
        found = meter.joules(work)
        taken[name] = time.monotonic() - begin
        return found

    count = 0

    def predict() -> None:
        nonlocal count
        count, _ = bench.batches(images, 1, seconds)

    try:
        idle = spent("idle", lambda: time.sleep(seconds)) / taken["idle"]
        busy = spent("busy", predict)
    except OSError as error:
        raise ConfigError(f"{meter.name}: the sensor can't be read any more: {error}") from error
    above = busy - idle * taken["busy"]
    millijoules = 1000 * above / count if above > 0 else None
    return Power(meter.name, meter.covers, idle, busy / taken["busy"], millijoules)


def _knowledge(bench: Bench, samples: Labelled, seed: int) -> Knowledge:
    rows = np.unique(np.linspace(0, len(samples.labels) - 1, min(DISTURBED, len(samples.labels))).astype(np.int64))
    part, own = np.array(samples.images[rows]), samples.labels[rows]

    def accuracy(shown: Images, classes: Ints) -> float:
        return float((bench.predict(shown).argmax(axis=1) == classes).mean())

    clean = accuracy(part, own)
    found = {
        name: {"0": clean, **{f"{level:g}": accuracy(disturbed(part, name, level, seed), own) for level in levels}}
        for name, levels in suited(part.shape[1:]).items()
    }
    return Knowledge(len(samples.labels), accuracy(samples.images, samples.labels), len(rows), found)
