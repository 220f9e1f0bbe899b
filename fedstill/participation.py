"""Which devices a round asks, when it does not ask all."""

from collections.abc import Iterable

from fedstill.rng import stream


def participants(seed: int, round_number: int, devices: Iterable[int], count: int) -> list[int]:
    """Return the devices that a round asks, ascending: those with the smallest of one random number each.

    A device's number follows from (run seed, round, device) alone, so the choice does not depend on how devices are
    spread over hosts, and a device that is gone changes the choice by one.

    Args:
        seed: run seed.
        round_number: from 1.
        devices: those that can be asked.
        count: how many to ask at most.
    """
    ranks = {device: stream(seed, "participant", round_number, device).random() for device in devices}
    return sorted(sorted(ranks, key=lambda device: (ranks[device], device))[:count])
