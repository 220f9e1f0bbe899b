from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fedstill.exchange import ServerExchange
from fedstill.rounds import RoundReplies
from fedstill.soft_labels import soft_labels
from server.checkpoints import Checkpoints
from server.federation import Federation, Row
from simulations.job import plan_of
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf


def federation(scenario: Scenario, folder: Path, rows: list[Row]) -> Federation:
    shelf = open_shelf(folder / "assets", scenario)
    wire = scenario.exchange
    exchange = ServerExchange(shelf.context(scenario.seed, 10), wire.per_round, scenario.rounds)
    plan = plan_of(Setup(scenario, folder, 1, "local"))
    return Federation(plan, shelf, exchange, Checkpoints(folder / "checkpoints"), lambda new: rows.extend(new[-1:]))


def replies(federation: Federation, round_number: int) -> RoundReplies:
    """Return answers of devices that agree with the teacher, but for the last, which lies in the first round."""
    ids = federation.exchange.ids(round_number)
    rows = federation.exchange.cache.labels[ids]
    lie = np.roll(rows, 1, axis=1) if round_number == 1 else rows
    votes = {device: soft_labels(ids, lie if device == 3 else rows) for device in range(4)}
    classes: Mapping[int, str] = dict.fromkeys(range(4), "pi5")
    return RoundReplies(round_number, ids, votes, {}, {}, classes)


@pytest.fixture
def checked(small: Scenario) -> Scenario:
    settings = small.consensus.model_copy(update={"rule": "reputable-experts"})
    return small.model_copy(update={"consensus": settings})


def test_a_federation_that_resumes_knows_who_lied(checked: Scenario, tmp_path: Path) -> None:
    undisturbed: list[Row] = []
    first = federation(checked, tmp_path, undisturbed)
    first.conclude(replies(first, 1))
    resumed_rows: list[Row] = []
    resumed = federation(checked, tmp_path, resumed_rows)
    assert resumed.knowledge.reputation.keys() == first.knowledge.reputation.keys() == set(range(4))
    first.conclude(replies(first, 2))
    resumed.conclude(replies(resumed, 2))
    assert undisturbed[-1] == resumed_rows[-1]
    lost, regained = (row["reputation"] for row in undisturbed)
    assert lost["3"] < 0.5 * lost["0"]
    assert lost["3"] < regained["3"] < 0.9 * regained["0"]


def test_a_rule_that_keeps_no_reputation_logs_none(small: Scenario, tmp_path: Path) -> None:
    rows: list[Row] = []
    server = federation(small, tmp_path, rows)
    server.conclude(replies(server, 1))
    assert rows[0]["reputation"] == {}
    assert rows[0]["entropy_before"] > 0
