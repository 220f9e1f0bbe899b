"""The virtual devices of a scenario as folders that real clients read: to try a deployment on one machine."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tomli_w

from fedstill.files import write_atomic
from simulations.scenario import Scenario
from simulations.shelf import Shelf, open_shelf

PROXY = "proxy-images.npy"


def write_device_folders(scenario: Scenario, out: Path) -> list[Path]:
    """Write what each device of a scenario has, and the proxy set beside; return the devices' descriptions.

    proxy-images.npy        the proxy set
    test.npz                the task's test set, on which simulated devices measure themselves
    device-<n>/data.toml    what the device has
    device-<n>/private.npz  its private samples
    """
    shelf = open_shelf(out / "assets", scenario)
    write_atomic(out / PROXY, shelf.proxy_path.read_bytes())
    np.savez(out / "test.npz", image=shelf.test.images, label=shelf.test.labels)
    return list(_devices(shelf, scenario.devices, out))


def _devices(shelf: Shelf, devices: int, out: Path) -> Iterable[Path]:
    description = {"format": "npz", "path": "private.npz", "test": "../test.npz"}
    for number in range(devices):
        folder = out / f"device-{number}"
        folder.mkdir(exist_ok=True)
        private = shelf.of_device(number)
        np.savez(folder / "private.npz", image=private.images, label=private.labels)
        write_atomic(folder / "data.toml", tomli_w.dumps(description).encode())
        yield folder / "data.toml"
