"""A fleet of device processes, run after run, with random kills: memory and disk must stay flat.

    python -m tests.deploy.soak [--devices 20] [--seconds 3600] [--kill-every 60]

Prints a line per finished run: what all processes hold (PSS), what the fleet's folders hold. Exit code 1: a run did not
end well, or the last quarter of the time holds more than GROWTH times what the second quarter held.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from simulations.memory import tree_pss
from tests.deploy.deployment import Deployment

GROWTH = 1.2
SOON = 5.0


def on_disk(folder: Path) -> int:
    """Return the bytes of the devices' and the server's folders, run folders apart."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and "data" not in path.parts:
                total += path.stat().st_size
    return total


def flat(name: str, values: list[float]) -> bool:
    """Say whether the last quarter of some values is about what the second one was."""
    quarter = max(1, len(values) // 4)
    before, after = median(values[quarter : 2 * quarter]), median(values[-quarter:])
    print(f"{name}: {before / 1e6:.0f} MB, at the end {after / 1e6:.0f} MB", flush=True)
    return after <= GROWTH * before


def soak(deployment: Deployment, devices: int, seconds: float, every: float) -> bool:
    """Run until the time is over and return whether all went well."""
    started, kill_at = time.monotonic(), time.monotonic() + every
    memory: list[float] = []
    disk: list[float] = []
    ended_well, number = True, 0
    while time.monotonic() < started + seconds:
        number += 1
        place = deployment.folder / f"run-{number}"
        place.mkdir()
        out = place / "run"
        deployment.begin(out, "exchange.timeout=300")
        peak = 0
        while not deployment.over(out):
            time.sleep(SOON)
            peak = max(peak, tree_pss())
            if time.monotonic() > kill_at:
                kill_at += every
                home = deployment.device(random.randrange(devices))
                program = random.choice(["agent", "supernode", "apps"])
                try:
                    deployment.kill(home, program)
                except (OSError, ValueError) as error:  # it is between its end and its next start
                    print(f"not killed: {program} of {home.name}: {error}", flush=True)
                else:
                    print(f"killed {program} of {home.name}", flush=True)
        code = deployment.ended(out)
        ended_well &= code == 0
        shutil.rmtree(place)
        memory.append(peak)
        disk.append(on_disk(deployment.folder))
        passed = time.monotonic() - started
        print(
            f"run {number}: exit code {code}, {passed:.0f} of {seconds:.0f} s; "
            f"memory {peak / 1e6:.0f} MB, disk {disk[-1] / 1e6:.0f} MB",
            flush=True,
        )
    return all([ended_well, len(memory) >= 4, flat("memory", memory), flat("disk", disk)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--kill-every", type=float, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fs") as folder:
        deployment = Deployment(Path(folder), chosen.devices)
        try:
            deployment.up()
            return 0 if soak(deployment, chosen.devices, chosen.seconds, chosen.kill_every) else 1
        finally:
            deployment.down()


if __name__ == "__main__":
    sys.exit(main())
