"""kill -9 at every step of download, verification, switch and watch: the good release stays, and the update goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from client.updates.home import STATE
from fedstill.release.manifest import FLOAT_FILE
from tests.client.devices import Device, version_of
from tests.client.updates.killing import TOO_LARGE


def test_kill_at_every_step_and_a_disk_that_fills_up(device: Device, releases: tuple[Path, Path]) -> None:
    old, new = map(version_of, releases)
    device.updater().check()
    device.delivery.folder = releases[1]
    size = (releases[1] / FLOAT_FILE).stat().st_size - 200
    assert (device.home.folder / STATE).stat().st_size < size
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.updates.killing", device.home.folder, device.address, str(size)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *kills, last, full = map(json.loads, done.stdout.splitlines())
    steps = [line["step"] for line in kills]
    # Every part of an update was among them: the loop ends only with an update that no step is left to kill.
    for name in (
        "metadata verified",
        "slot prepared",
        "downloaded",
        "folder verified",
        "tried",
        "switched",
        "committed",
    ):
        assert name in steps
    assert sum("chunk" in name for name in steps) > 4
    assert last["code"] == 0
    for line in kills:
        assert line["code"] == -signal.SIGKILL, line
        switched = steps.index(line["step"]) >= steps.index("switched")
        assert line["killed"]["version"] == (new if switched else old), line
        assert line["next"] == 0, line
        assert line["after"] == {"version": new, "good": 1, "watched": False}, line
    assert full["code"] == TOO_LARGE
    assert full["killed"]["version"] == old
    assert full["after"] == {"version": new, "good": 1, "watched": False}
