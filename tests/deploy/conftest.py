"""One deployment for all tests, which takes longer to begin than they do: each leaves it as it found it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.deployment import Deployment, fedstill, rows


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    found = Deployment(tmp_path_factory.mktemp("d"))
    try:
        found.up()
        yield found
    finally:
        found.down()


@dataclass(frozen=True)
class Undisturbed:
    """The simulation of the deployment's scenario: what a run must come to, whatever happens in it."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def undisturbed(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    out: Path = tmp_path_factory.mktemp("undisturbed") / "run"
    fedstill("simulate", str(deployment.file), "--out", str(out), "--workers", "1")
    return Undisturbed(rows(out), json.loads((out / "summary.json").read_text()))
