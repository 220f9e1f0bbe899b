"""How long a published release takes to run on many devices of one machine: from publish to switch.

`python -m benchmarks.updates RELEASE --keys KEYS [--devices 20] [--every 2s] [--json]`

RELEASE is a folder that `fedstill simulate` wrote (`students/<class>/`), KEYS the folder of the keys that signed it.
Each device is a real `fedstill client update` process with a folder of its own; all of them ask one real service over
TLS at the interval that is given. They install the release; then the same models are signed as a newer version and
published. A device has switched when its state names the new version: downloaded, verified, tried and benchmarked in
processes of its own. All processes share this machine's cores, which is what takes most of the time.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.delivery import service
from benchmarks.releases import certificate
from client.updates.home import Home
from server.release.keys import ROOT, open_keys
from server.release.sign import sign_again
from server.release.store import publish
from simulations.run_folder import commit

PATIENCE = 1800.0  # seconds


@contextlib.contextmanager
def updaters(homes: list[Path], options: list[str], every: str) -> Iterator[None]:
    """Run an updater for each device's folder."""
    command = [sys.executable, "-m", "fedstill.cli", "client", "update", *options, "--every", every]
    with contextlib.ExitStack() as stack:
        for home in homes:
            log = stack.enter_context((home / "log").open("w"))
            process = subprocess.Popen([*command, "--home", str(home)], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


def switched(homes: list[Path], version: int) -> list[float]:
    """Wait until every device runs a version, and return the seconds that each took `[devices]`."""
    begun, seconds = time.monotonic(), dict.fromkeys(homes, -1.0)
    while missing := [home for home, found in seconds.items() if found < 0]:
        if time.monotonic() - begun > PATIENCE:
            raise RuntimeError(f"{len(missing)} devices did not switch; see {missing[0] / 'log'}")
        for home in missing:
            running = Home(home).state().running
            if running is not None and running.version == version:
                seconds[home] = time.monotonic() - begun
        time.sleep(0.05)
    return list(seconds.values())


def run(release: Path, keys_folder: Path, devices: int, every: str, folder: Path) -> dict[str, Any]:
    """Publish a release and a newer one of it, and return when the devices ran each."""
    keys, own, store = open_keys(keys_folder), folder / "release", str(folder / "store")
    shutil.copytree(release, own)
    ca, cert, key = certificate(folder)
    first = publish(own, store, keys)
    homes = [folder / f"device-{number}" for number in range(devices)]
    trust = [sys.executable, "-m", "fedstill.cli", "client", "trust", str(keys_folder / ROOT), "--home"]
    for home in homes:
        subprocess.run([*trust, str(home)], check=True, stdout=subprocess.DEVNULL)
    with service(folder, cert, key) as (_, port):
        options = ["--server", f"localhost:{port}", "--ca", str(ca), "--class", first.device_class]
        with updaters(homes, options, every):
            installed = switched(homes, first.version)
            manifest = sign_again(own, keys.trust, keys)
            published = publish(own, store, keys)
            updated = switched(homes, manifest.version)
    return {
        "commit": commit(),
        "devices": devices,
        "every": every,
        "release_bytes": sum(length for length, _ in published.files.values()),
        "first_install_seconds": _spread(installed),
        "publish_to_switch_seconds": _spread(updated),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": float(np.median(seconds)), "first": min(seconds), "last": max(seconds)}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="students/<class> of a run folder")
    parser.add_argument("--keys", type=Path, required=True, help="folder of the keys that signed it")
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--every", default="2s", help="how often a device asks")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.release.resolve(), given.keys.resolve(), given.devices, given.every, Path(folder))
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['devices']} devices, {found['release_bytes']:,} bytes, each asks every {found['every']}")
    for name, text in (("first_install_seconds", "first install"), ("publish_to_switch_seconds", "publish to switch")):
        spread = found[name]
        print(f"{text}: median {spread['median']:.1f} s, {spread['first']:.1f} to {spread['last']:.1f} s")


if __name__ == "__main__":
    main()
