"""How private data are spread over devices: each rule returns the sample indices of each device."""

import heapq
from collections.abc import Callable
from functools import partial

import numpy as np

from fedstill.errors import DataError
from fedstill.soft_labels import Ints

DRAWN_DEVICES = 20_000  # devices of all splits that are drawn before one is levelled

Partition = Callable[[Ints, int, float, int, np.random.Generator], list[Ints]]


def dirichlet(labels: Ints, devices: int, alpha: float, min_samples: int, rng: np.random.Generator) -> list[Ints]:
    """Split each class over the devices by shares from a Dirichlet distribution (Hsu et al. 2019, arXiv 1909.06335).

    Args:
        labels: class of each private sample `[samples]`.
        devices: number of devices.
        alpha: concentration; small values give each device few classes.
        min_samples: of each device at least.
        rng: random stream.

    A split that leaves some device below `min_samples` is drawn again. With very many devices every split does: then
    the last one is kept, and those devices get samples of the devices that have most.

    Raises:
        DataError: there are too few samples for the devices, or more than a quarter of them would have to move.
    """
    _check_enough(labels, devices, min_samples)
    for _ in range(max(1, min(1000, DRAWN_DEVICES // devices))):
        joined = _drawn_by_class(labels, devices, alpha, rng)
        if min(len(part) for part in joined) >= min_samples:
            return joined
    lacking = sum(max(0, min_samples - len(part)) for part in joined)
    if lacking > len(labels) / 4:
        raise DataError(
            f"no Dirichlet split with alpha {alpha} gives each of {devices} devices {min_samples} of {len(labels)} "
            "samples; use fewer devices, a larger partition.alpha or a smaller partition.min_samples"
        )
    return _levelled(joined, min_samples, rng)


def _drawn_by_class(labels: Ints, devices: int, alpha: float, rng: np.random.Generator) -> list[Ints]:
    parts: list[list[Ints]] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(devices, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).round().astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]


def _levelled(parts: list[Ints], least: int, rng: np.random.Generator) -> list[Ints]:
    """Move samples, one at a time, from whoever has most to those who have too few."""
    held = [list(rng.permutation(part)) for part in parts]
    heap = [(-len(own), device) for device, own in enumerate(held)]
    heapq.heapify(heap)
    for own in held:
        while len(own) < least:
            _, richest = heapq.heappop(heap)
            own.append(held[richest].pop())
            heapq.heappush(heap, (-len(held[richest]), richest))
    return [np.sort(np.array(own, dtype=np.int64)) for own in held]


def iid(labels: Ints, devices: int, alpha: float, min_samples: int, rng: np.random.Generator) -> list[Ints]:
    """Split at random into parts of equal size; `alpha` is not used."""
    _check_enough(labels, devices, min_samples)
    return [np.sort(part).astype(np.int64) for part in np.array_split(rng.permutation(len(labels)), devices)]


def one_class(labels: Ints, devices: int, alpha: float, min_samples: int, rng: np.random.Generator) -> list[Ints]:
    """Give each device one class, a class to several in equal parts where there are more devices than classes.

    The "strong non-IID" setting of Selective-FD (Shao et al. 2024, Nature Communications 15). Fewer devices than
    classes get several classes each. `alpha` is not used.

    Raises:
        DataError: there are too few samples for the devices.
    """
    _check_enough(labels, devices, min_samples)
    classes = np.unique(labels)
    parts: list[list[Ints]] = [[] for _ in range(devices)]
    for place, label in enumerate(classes):
        holders = range(place, devices, len(classes)) if place < devices else [place % devices]
        members = rng.permutation(np.flatnonzero(labels == label))
        for holder, piece in zip(holders, np.array_split(members, len(holders)), strict=True):
            parts[holder].append(piece)
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]


def shards(
    labels: Ints, devices: int, alpha: float, min_samples: int, rng: np.random.Generator, *, per_device: int = 2
) -> list[Ints]:
    """Cut the samples, sorted by class, into equal shards and deal so many to each device at random.

    The "pathological non-IID" setting of FedAvg (McMahan et al. 2017, arXiv 1602.05629, section 3): a device
    holds about as many classes as shards at most. `alpha` is not used.

    Args:
        labels: class of each private sample `[samples]`.
        devices: number of devices.
        alpha: not used.
        min_samples: of each device at least.
        rng: random stream.
        per_device: shards of each device, at least 1.

    Raises:
        DataError: there are too few samples for the devices, or fewer than shards.
    """
    _check_enough(labels, devices, max(min_samples, per_device))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_class, devices * per_device)
    dealt = rng.permutation(len(pieces)).reshape(devices, per_device)
    return [np.sort(np.concatenate([pieces[piece] for piece in own])).astype(np.int64) for own in dealt]


def quantity(labels: Ints, devices: int, alpha: float, min_samples: int, rng: np.random.Generator) -> list[Ints]:
    """Split at random into parts whose sizes follow a Dirichlet distribution, beyond what each has at least.

    Quantity skew (Li et al. 2021, arXiv 2102.02079): the devices' classes are alike, their numbers of samples are not.

    Args:
        labels: class of each private sample `[samples]`.
        devices: number of devices.
        alpha: concentration; small values give few devices most samples.
        min_samples: of each device at least.
        rng: random stream.

    Raises:
        DataError: there are too few samples for the devices.
    """
    _check_enough(labels, devices, min_samples)
    rest = len(labels) - devices * min_samples
    cuts = (np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * rest).round().astype(np.int64)
    edges = cuts + min_samples * np.arange(1, devices)
    return [np.sort(part).astype(np.int64) for part in np.split(rng.permutation(len(labels)), edges)]


def natural(groups: Ints, devices: int, min_samples: int) -> list[Ints]:
    """Deal whole groups of samples, such as those of one writer: the largest left to the device with fewest samples.

    Args:
        groups: whose each private sample is `[samples]`.
        devices: number of devices, at most that of the groups.
        min_samples: of each device at least.

    Raises:
        DataError: there are fewer groups than devices, or a device gets too few samples.
    """
    found, sizes = np.unique(groups, return_counts=True)
    if len(found) < devices:
        raise DataError(f"{len(found)} groups of samples are too few for {devices} devices; use fewer devices")
    device_of = np.empty(len(found), dtype=np.int64)
    fewest = [(0, device) for device in range(devices)]
    for place in np.argsort(-sizes, kind="stable"):
        held, device = heapq.heappop(fewest)
        device_of[place] = device
        heapq.heappush(fewest, (held + int(sizes[place]), device))
    least = min(fewest)[0]
    if least < min_samples:
        raise DataError(f"whole groups give a device {least} samples; use fewer devices or a smaller min_samples")
    owners = device_of[np.searchsorted(found, groups)]
    return [np.flatnonzero(owners == device).astype(np.int64) for device in range(devices)]


def _check_enough(labels: Ints, devices: int, min_samples: int) -> None:
    if len(labels) < devices * min_samples:
        raise DataError(
            f"{len(labels)} private samples are too few for {devices} devices with at least {min_samples} each; "
            "use fewer devices or smaller server, guard and proxy sets"
        )


NATURAL = "natural"  # by name only: it deals what the task says belongs together, not labels


def partitions(per_device: int = 2) -> dict[str, Partition]:
    """Return the built-in rules on labels by name.

    Args:
        per_device: shards of each device, for `shards`.
    """
    return {
        "dirichlet": dirichlet,
        "iid": iid,
        "one-class": one_class,
        "quantity": quantity,
        "shards": partial(shards, per_device=per_device),
    }


PARTITIONS: dict[str, Partition] = partitions()
