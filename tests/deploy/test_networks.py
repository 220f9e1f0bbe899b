"""A device on a bad link: another network namespace, 250 kbit/s both ways, delays, cuts, and a partition that heals."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.conftest import Undisturbed
from tests.deploy.deployment import ALL, Deployment, after_round, free_ports, rows

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
SPACE = "fedstill-far"
HERE, THERE = "10.213.77.1", "10.213.77.2"
SPEED = ("tbf", "rate", "250kbit", "burst", "16kb", "latency", "500ms")
PARTITION = 20.0
"""Seconds without a byte; less than Flower takes to give a device up."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Far:
    """A network namespace behind a slow line, and the mood of the link to the server in it.

    Attributes:
        port: where the server seems to be, on the namespace's own loopback address.
        within: command line to which a command is appended that is to run there.
    """

    port: int
    within: tuple[str, ...]
    mood_file: Path

    def mood(self, word: str, delay: float = 0.0) -> None:
        part = self.mood_file.with_suffix(".part")
        part.write_text(f"{word} {delay}")
        part.replace(self.mood_file)


@contextmanager
def far_away(server_port: int, folder: Path) -> Iterator[Far]:
    """Make the namespace: the server's port is forwarded into it, over the slow line and the link."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("ip and tc (iproute2) are not installed")
    subprocess.run(["ip", "netns", "delete", SPACE], check=False, capture_output=True)  # of a test that was killed
    try:
        ip("netns", "add", SPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made: {error.stderr.decode().strip()}")
    within = ("ip", "netns", "exec", SPACE)
    far = Far(free_ports(1)[0], within, folder / "mood")
    far.mood("open")
    (folder / "open").write_text("open 0")
    links: list[subprocess.Popen[bytes]] = []
    try:
        ip("link", "add", "fs-near", "type", "veth", "peer", "name", "fs-far", "netns", SPACE)
        ip("addr", "add", f"{HERE}/30", "dev", "fs-near")
        ip("link", "set", "fs-near", "up")
        for words in (
            ("addr", "add", f"{THERE}/30", "dev", "fs-far"),
            *(("link", "set", n, "up") for n in ("fs-far", "lo")),
        ):
            ip("-n", SPACE, *words)
        subprocess.run(["tc", "qdisc", "add", "dev", "fs-near", "root", *SPEED], check=True)
        subprocess.run([*within, "tc", "qdisc", "add", "dev", "fs-far", "root", *SPEED], check=True)
        link, between = [sys.executable, "-m", "tests.deploy.link"], free_ports(1)[0]
        near = [*link, str(between), "127.0.0.1", str(server_port), str(folder / "open"), HERE]
        links.append(subprocess.Popen(near))
        links.append(subprocess.Popen([*within, *link, str(far.port), HERE, str(between), str(far.mood_file)]))
        yield far
    finally:
        for running in links:
            running.kill()
            running.wait()
        ip("netns", "delete", SPACE)


def test_a_device_on_a_slow_and_breaking_line_gives_the_same_result(
    deployment: Deployment, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with far_away(deployment.port, tmp_path) as far:
        far.mood("open", 0.1)
        with deployment.restarted(2, far.within, far.port):
            deployment.begin(out, ALL)
            after_round(out, 1)
            far.mood("cut")
            time.sleep(2)
            far.mood("open", 0.1)
            after_round(out, 2)
            far.mood("hole")
            time.sleep(PARTITION)
            far.mood("open")
            assert deployment.ended(out) == 0, deployment.said(f"run-{tmp_path.name}")
    assert rows(out) == undisturbed.rows
