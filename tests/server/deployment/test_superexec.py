"""The server's SuperExec as a real process."""

import os
import subprocess
from pathlib import Path

from fedstill.processes import module
from tests.waiting import eventually


def test_what_an_app_installed_half_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    half = tmp_path / "apps" / "fedstill.fedstill.0.1.0.12345678"
    half.mkdir(parents=True)
    command = [*module("server.deployment.superexec"), "--insecure", "--runtime-api-address", "127.0.0.1:1"]
    environment = {**os.environ, "FLWR_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: not half.exists())
            assert process.poll() is None
        finally:
            process.kill()
