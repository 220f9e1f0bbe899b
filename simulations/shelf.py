"""A run's data on disk, split once and mapped by every process: `assets/` in the run folder.

* server: labelled samples of the server, guard apart: held out from the teacher's training to judge its updates
* proxy: the unlabelled samples that all sides share; their labels are dropped here, at load
* private: everything else of the training set, by device
* test: the task's own test set, for reporting only
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedstill import packet
from fedstill.errors import DataError, FedstillError
from fedstill.files import write_folder
from fedstill.loading import resolve
from fedstill.rng import stream
from fedstill.soft_labels import Ints
from fedstill.tasks import Images, Task, load_task
from simulations.partitions import NATURAL, Partition, natural, partitions
from simulations.scenario import PartitionSettings, Scenario

MIDDLE = 127.5  # of a pixel's values
SPARE = 2  # times the samples that the devices need at least, when they are drawn with replacement


@dataclass(frozen=True)
class Labelled:
    """Images with their labels: uint8 `[samples, channels, height, width]` and `[samples]`."""

    images: Images
    labels: Ints


@dataclass(frozen=True)
class Shelf:
    """The folder with a run's data; arrays are mapped when asked for, never copied into messages between processes.

    Attributes:
        folder: where the arrays lie.
    """

    folder: Path

    def _labelled(self, name: str) -> Labelled:
        return Labelled(
            np.load(self.folder / f"{name}-images.npy", mmap_mode="r"), np.load(self.folder / f"{name}-labels.npy")
        )

    @cached_property
    def server(self) -> Labelled:
        """The server's labelled samples that the teacher trains on."""
        return self._labelled("server")

    @cached_property
    def guard(self) -> Labelled:
        """The server's held-out labelled samples."""
        return self._labelled("guard")

    @cached_property
    def test(self) -> Labelled:
        """The test set."""
        return self._labelled("test")

    @cached_property
    def private(self) -> Labelled:
        """All private samples, of all devices."""
        return self._labelled("private")

    @property
    def proxy_path(self) -> Path:
        """The file of the proxy set, as devices download it."""
        return self.folder / "proxy-images.npy"

    def backbone_path(self, name: str) -> Path:
        """Return the file of a device class's backbone, as its devices download it."""
        return self.folder / f"backbone-{name}.onnx"

    @property
    def teacher_path(self) -> Path:
        """Return the file of the initial teacher, where a method's devices download it."""
        return self.folder / "teacher.weights"

    @cached_property
    def proxy(self) -> Images:
        """The proxy set."""
        images: Images = np.load(self.proxy_path, mmap_mode="r")
        return images

    @cached_property
    def _proxy_digest(self) -> bytes:
        return hashlib.sha256(self.proxy_path.read_bytes()).digest()[:8]

    @cached_property
    def partition(self) -> list[Ints]:
        """Rows of `private` by device."""
        rows, ends = (np.load(self.folder / f"partition-{name}.npy") for name in ("rows", "ends"))
        return np.split(rows, ends[:-1])

    @cached_property
    def shared(self) -> bool:
        """Whether samples were drawn with replacement, for more devices than there are samples for."""
        seen = np.zeros(len(self.private.labels), dtype=np.bool_)
        for rows in self.partition:
            if seen[rows].any() or len(np.unique(rows)) < len(rows):
                return True
            seen[rows] = True
        return False

    def of_device(self, device: int) -> Labelled:
        """Return a device's private samples."""
        rows = self.partition[device]
        return Labelled(self.private.images[rows], self.private.labels[rows])

    def context(self, seed: int, classes: int) -> packet.Context:
        """Return what all packets of the run share."""
        return packet.Context(seed, self._proxy_digest, len(self.proxy), classes)


def split(scenario: Scenario) -> dict[str, np.ndarray]:
    """Load the scenario's data and split them by its seed; return the arrays by file name.

    Raises:
        DataError: the data are missing, corrupt, of the wrong form, or too few.
        ConfigError: the task or the partition rule is unknown.
    """
    task: Task = load_task(scenario.task)
    data = scenario.data
    arrays = task.load(Path(data.dir) if data.dir else None)
    task.check(arrays)
    total, shared = len(arrays.train_labels), data.server_samples + data.proxy_samples
    if total <= shared:
        raise DataError(
            f"task {task.name} has {total} training samples; data.server_samples + data.proxy_samples = {shared} "
            "leave none for the devices"
        )
    order = stream(scenario.seed, "split").permutation(total)
    trained = data.server_samples - data.guard_samples
    edges = [trained, data.server_samples, shared]
    server, guard, proxy, private = (np.sort(part) for part in np.split(order, edges))
    if data.private_samples:
        private = private[np.sort(stream(scenario.seed, "private").permutation(len(private))[: data.private_samples])]
    groups = None if arrays.train_groups is None else arrays.train_groups[private]
    parts = _parts(scenario, arrays.train_labels[private].astype(np.int64), groups)
    files: dict[str, np.ndarray] = {"proxy-images": arrays.train_images[proxy]}
    for name, rows in (("server", server), ("guard", guard), ("private", private)):
        files[f"{name}-images"] = arrays.train_images[rows]
        files[f"{name}-labels"] = arrays.train_labels[rows].astype(np.int64)
    if scenario.partition.feature_shift:
        _shift_features(scenario, files["private-images"], parts)
    files["test-images"], files["test-labels"] = arrays.test_images, arrays.test_labels.astype(np.int64)
    files.update({f"part-{device}": rows for device, rows in enumerate(parts)})
    return files


def _parts(scenario: Scenario, labels: Ints, groups: Ints | None) -> list[Ints]:
    """Return the rows of each device.

    Where the samples are too few for the devices, the rule splits a pool of draws from them, so that a sample may be on
    several devices, or twice on one.
    """
    wanted = scenario.partition
    if wanted.rule == NATURAL:
        if groups is None:
            raise DataError(f"partition.rule is natural, but task {scenario.task} does not say whose samples are whose")
        return natural(groups, scenario.devices, wanted.min_samples)
    rule = resolve("partition rule", wanted.rule, partitions(wanted.shards))
    rng = stream(scenario.seed, "partition")
    if len(labels) >= scenario.devices * wanted.min_samples:
        return _dealt(wanted, rule, labels, scenario.devices, rng)
    drawn = SPARE * scenario.devices * wanted.min_samples
    pool = stream(scenario.seed, "pool").integers(0, len(labels), drawn)
    return [np.sort(pool[part]) for part in _dealt(wanted, rule, labels[pool], scenario.devices, rng)]


def _dealt(
    wanted: PartitionSettings, rule: Partition, labels: Ints, devices: int, rng: np.random.Generator
) -> list[Ints]:
    """Return what a rule gives each device, checked: a rule of the user's own may do anything."""
    try:
        found = rule(labels, devices, wanted.alpha, wanted.min_samples, rng)
    except FedstillError:
        raise
    except Exception as error:
        raise DataError(f"partition rule {wanted.rule!r} failed with {type(error).__name__}: {error}") from error
    try:
        parts = [np.asarray(part) for part in found]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"partition rule {wanted.rule!r} gave {type(found).__name__}, not the rows of each device"
        ) from error
    _check_parts(parts, devices, len(labels), wanted.rule)
    return [part.astype(np.int64) for part in parts]


def _shift_features(scenario: Scenario, images: Images, parts: list[Ints]) -> None:
    """Give each device's images a contrast and a brightness of its own, in place, from the run's seed."""
    strength = scenario.partition.feature_shift
    rows = np.concatenate(parts)
    if len(np.unique(rows)) < len(rows):
        raise DataError("partition.feature_shift needs samples of each device's own: use fewer devices")
    for device, own in enumerate(parts):
        contrast, brightness = stream(scenario.seed, "feature-shift", device).uniform(-strength, strength, 2)
        shifted = (images[own].astype(np.float32) - MIDDLE) * (1 + contrast) + MIDDLE * (1 + brightness)
        images[own] = np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def _check_parts(parts: list[Ints], devices: int, samples: int, rule: str) -> None:
    if len(parts) != devices or any(part.size == 0 for part in parts):
        raise DataError(f"partition rule {rule!r} did not give each of {devices} devices a sample")
    if any(part.ndim != 1 or part.dtype.kind not in "iu" for part in parts):
        raise DataError(f"partition rule {rule!r} gave a device something else than a list of rows")
    rows = np.concatenate(parts)
    if rows.min() < 0 or rows.max() >= samples or len(np.unique(rows)) != len(rows):
        raise DataError(f"partition rule {rule!r} gave a sample twice or one that does not exist")


def open_shelf(folder: Path, scenario: Scenario, files: Mapping[str, Any] | None = None) -> Shelf:
    """Return the shelf in `folder`, filled if it is not there yet.

    Args:
        folder: where it lies.
        scenario: what to fill it from.
        files: what `split` returned, when the caller has it already.
    """
    if not folder.is_dir():
        files = split(scenario) if files is None else files

        def fill(target: Path) -> None:
            if "part-0" in files:  # a server of real devices has none of their shares
                parts = [files[f"part-{device}"] for device in range(scenario.devices)]
                np.save(target / "partition-rows.npy", np.concatenate(parts))
                np.save(target / "partition-ends.npy", np.cumsum([len(part) for part in parts]))
            for name, array in files.items():
                if not name.startswith("part-"):
                    np.save(target / f"{name}.npy", array)

        write_folder(folder, fill)
    return Shelf(folder)


@lru_cache(maxsize=4)
def kept_shelf(folder: Path) -> Shelf:
    """Return the filled shelf in `folder`, the same for all devices that this process computes."""
    return Shelf(folder)
