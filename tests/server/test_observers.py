"""Devices of all learners in one federation: who is counted as trained, and whose labels make the consensus."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from fedstill.errors import ConfigError, QuorumError
from fedstill.exchange import ServerExchange
from fedstill.flower import FederatedDistillation
from fedstill.rounds import RoundReplies
from fedstill.soft_labels import soft_labels
from server.checkpoints import Checkpoints
from server.federation import Federation, Row
from simulations.backbones import make_backbones
from simulations.engines.local import LocalGrid
from simulations.job import plan_of
from simulations.run_folder import CONFIG, write_config
from simulations.scenario import Scenario, dump, load_scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf
from tests.conftest import SMALL

LEARNERS = (
    "device_classes.pi5.student='tiny-conv-s'",
    "device_classes.pi4.learner='head'",
    "device_classes.zero2w.student='tiny-conv-s'",
    "device_classes.zero2w.learner='observer'",
    "device_classes.mcu.student='tiny-conv-s'",
    "executor='cohort'",
    "cohort.chunk=2",
)


@pytest.fixture(scope="module")
def mixed() -> Scenario:
    return load_scenario("digits", [*SMALL, *LEARNERS])


def begin(scenario: Scenario, out: Path, rows: list[Row]) -> tuple[Federation, ServerExchange]:
    shelf = open_shelf(out / "assets", scenario)
    make_backbones(scenario, shelf)
    exchange = ServerExchange(shelf.context(scenario.seed, 10), scenario.exchange.per_round, scenario.rounds)
    plan = plan_of(Setup(scenario, out, 1, "local"))
    return Federation(
        plan, shelf, exchange, Checkpoints(out / "checkpoints"), lambda new: rows.extend(new[-1:])
    ), exchange


def test_torch_head_and_observer_are_one_federation(mixed: Scenario, tmp_path: Path) -> None:
    rows: list[Row] = []
    federation, exchange = begin(mixed, tmp_path, rows)
    write_config(tmp_path, dump(mixed))
    config: dict[str, bool | float | int | str] = {
        "scenario": str(tmp_path / CONFIG),
        "out": str(tmp_path),
        "host": "simulations.host:build",
    }
    strategy = FederatedDistillation(exchange, federation.conclude)
    strategy.start(LocalGrid(app, 2, config), num_rounds=2)
    assert [(row["answers"], row["trained"], row["observed"]) for row in rows] == [(4, 3, 1)] * 2
    assert [row["refused"] for row in rows] == [{}, {}]
    steps = rows[-1]["device_steps"]
    assert steps["zero2w"] == 0
    assert min(steps["pi5"], steps["pi4"], steps["mcu"]) > 0
    assert all(accuracy is not None for accuracy in rows[-1]["device_accuracy"].values())


def test_an_observers_labels_change_no_consensus(mixed: Scenario, tmp_path: Path) -> None:
    rows: list[Row] = []
    federation, exchange = begin(mixed, tmp_path, rows)
    ids = exchange.ids(1)
    honest = exchange.cache.labels[ids]
    votes = {device: soft_labels(ids, honest) for device in range(3)}
    kinds = {0: "pi5", 1: "pi4", 2: "mcu", 3: "zero2w"}
    alone = federation._trained(RoundReplies(1, ids, votes, {}, {}, kinds))
    lie = soft_labels(ids, np.roll(honest, 1, axis=1))
    all_of_them = RoundReplies(1, ids, {**votes, 3: lie}, {}, {}, kinds)
    assert federation._trained(all_of_them) == alone
    assert 3 in all_of_them.votes  # what the round holds stays as it is
    with pytest.raises(QuorumError, match="only observers answered"):
        federation.conclude(replace(all_of_them, votes={3: lie}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([f"device_classes.{name}.learner='observer'" for name in ("pi5", "pi4", "mcu")], "all device classes observe"),
        (["device.certainty='background'"], "knows no certainty 'background'"),
        (["method.device='simulations.baselines.fd:answer'"], "is no learner of method"),
    ],
)
def test_what_learners_without_torch_can_not_do_is_refused_at_once(changes: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_scenario("digits", [*SMALL, *LEARNERS, *changes])
