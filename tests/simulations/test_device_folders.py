from pathlib import Path

import numpy as np

from client.data import load, read_description
from fedstill.tasks import load_task
from simulations.device_folders import PROXY, write_device_folders
from simulations.scenario import Scenario
from simulations.shelf import open_shelf


def test_a_real_device_reads_what_the_virtual_one_has(small: Scenario, tmp_path: Path) -> None:
    descriptions = write_device_folders(small, tmp_path / "split")
    shelf = open_shelf(tmp_path / "assets", small)
    assert len(descriptions) == small.devices
    for number, description in enumerate(descriptions):
        found = load(read_description(description), load_task(small.task))
        assert np.array_equal(found.private.images, shelf.of_device(number).images)
        assert np.array_equal(found.private.labels, shelf.of_device(number).labels)
        assert np.array_equal(found.test.images, shelf.test.images)
    assert (tmp_path / "split" / PROXY).read_bytes() == shelf.proxy_path.read_bytes()
