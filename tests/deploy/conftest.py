"""One deployment for all tests of a process, which takes longer to begin than they do: each leaves it as it found it.

With FEDSTILL_NO_SKIPS a test that can't run here fails with its reason: CI is to see when it no longer tests something.
`make test-deploy` runs two files at a time, as most of their time passes in waiting: no two files may use the same name
for what is there once on a machine, such as a lab. Each process has a deployment of its own.
"""

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.deployment import Deployment, fedstill, rows

NO_SKIPS = "FEDSTILL_NO_SKIPS"
LAST = 3000
"""Characters of a log that are shown of a test that failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    own = item.funcargs.get("deployment")
    if report.failed and report.when == "call" and isinstance(own, Deployment):
        for path in sorted(own.folder.rglob("*.log")):
            report.sections.append((str(path), path.read_text(errors="replace")[-LAST:]))
    if os.environ.get(NO_SKIPS) and report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (str(report.longrepr),)
        report.outcome = "failed"
        report.longrepr = f"this must run here, and did not: {reason}"
    return report


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
