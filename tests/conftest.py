"""A scenario small enough to run in seconds, with every part of a real one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fedstill.workers import prepare_torch
from simulations.scenario import Scenario, load_scenario

os.environ.update(
    {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "ORT_DISABLE_TELEMETRY": "1",
    }
)

settings.register_profile("fedstill", deadline=None)  # timings decide no test
settings.load_profile("fedstill")

SMALL = (
    "rounds=2",
    "devices=4",
    "data.private_samples=160",
    "data.proxy_samples=60",
    "partition.alpha=5",
    "exchange.per_round=30",
    "teacher.initial.epochs=3",
    "teacher.update.epochs=1",
    "device.first_digest.epochs=1",
    "device.digest.epochs=1",
    "device.revisit.epochs=1",
    "students.distil.epochs=1",
    "students.calibration_samples=20",
    "central.fit.epochs=1",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute on one thread from the start: fixtures of a module come before those of its tests."""
    prepare_torch()


@pytest.fixture
def small() -> Scenario:
    """The digits scenario, cut to seconds."""
    return load_scenario("digits", SMALL)


@pytest.fixture(scope="session")
def small_options() -> list[str]:
    """Command line options that cut the digits scenario to seconds."""
    return [part for change in SMALL for part in ("--set", change)]


@pytest.fixture(scope="session", autouse=True)
def _own_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep signing keys out of the user's data folder, for fixtures of any scope and the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSTILL_KEYS", str(tmp_path_factory.mktemp("keys") / "own"))
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded data out of the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
