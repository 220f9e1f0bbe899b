"""Devices of several versions in one run: an older one that lacks a setting of it, and a newer one that has more."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.conftest import Undisturbed
from tests.deploy.deployment import Deployment, rows

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
PACKAGES = ("fedstill", "client", "server", "simulations", "protos", "deploy")
SETTING = "    abstain_below: float = Field(default=0.0, ge=0, lt=1)\n"


@contextmanager
def of_version(deployment: Deployment, number: int, folder: Path, settings: str) -> Iterator[None]:
    """Let a device run a copy of the packages whose device settings have another line instead of SETTING's."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    changed = folder / "fedstill" / "settings.py"
    text = changed.read_text()
    assert text.count(SETTING) == 1
    changed.write_text(text.replace(SETTING, settings))
    with deployment.restarted(number, ("env", f"--chdir={folder}", f"PYTHONPATH={folder}")):
        yield


def test_an_older_device_sits_out_and_says_which_setting_it_lacks_and_a_newer_one_takes_part(
    deployment: Deployment, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    newer = f"{SETTING}    invented_since: int = Field(default=0, ge=0)\n"
    with of_version(deployment, 1, tmp_path / "older", ""), of_version(deployment, 2, tmp_path / "newer", newer):
        deployment.begin(out, "rounds=2")
        assert deployment.ended(out) == 0, deployment.said(f"run-{tmp_path.name}")
    found = rows(out)
    assert [row["answers"] for row in found] == [2, 2]
    for row in found:
        assert set(row["refused"]) == {"1"}
        assert "abstain_below" in row["refused"]["1"]
    assert found[0]["asked"] == undisturbed.rows[0]["asked"]
