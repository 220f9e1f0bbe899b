from pathlib import Path
from typing import Any

import pytest

from simulations import launch as module
from simulations.how import Engine, How
from simulations.launch import launch, prepare
from simulations.scenario import Scenario


@pytest.mark.parametrize(
    ("hosts", "least", "devices_per_host", "expected"),
    [(0, 1, 500, 1), (0, 2, 500, 2), (0, 2, 3, 3), (4, 2, 3, 4), (9, 1, 500, 8), (0, 9, 500, 8)],
)
def test_hosts_are_those_asked_for_or_as_many_as_cores_and_small_messages_take_and_none_without_devices(
    small: Scenario,
    hosts: int,
    least: int,
    devices_per_host: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def no_run(server_app: object, client_app: object, hosts: int, config: dict[str, Any]) -> None:
        asked.append(hosts)

    monkeypatch.setattr("simulations.setup.DEVICES_PER_HOST", devices_per_host)
    monkeypatch.setattr(module, "run_local", no_run)
    scenario = small.model_copy(update={"devices": 8})
    prepare(scenario, tmp_path / "run", tmp_path / "keys")
    launch(tmp_path / "run", How(Engine.local, hosts, 1, keys=tmp_path / "keys", least=least))
    assert asked == [expected]
