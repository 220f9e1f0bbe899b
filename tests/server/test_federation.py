"""Concluded rounds: resumable with labels that last and with reputations, also when nothing was asked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedstill.consensus import Votes
from fedstill.exchange import ServerExchange
from fedstill.flower import FederatedDistillation, answer, describe
from fedstill.rounds import Reopened, RoundReplies
from fedstill.soft_labels import soft_labels
from server.checkpoints import Checkpoints
from server.federation import Federation, Row
from simulations.engines.local import LocalGrid
from simulations.host import SimulatedHost
from simulations.job import plan_of
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf


def lasting(small: Scenario, per_round: int, duration: int) -> Scenario:
    """The small scenario with five rounds of independent draws, whose consensus lasts."""
    wire = small.exchange.model_copy(update={"per_round": per_round, "duration": duration, "draw": "independent"})
    return small.model_copy(update={"rounds": 5, "exchange": wire})


def federate(scenario: Scenario, out: Path, until: int) -> tuple[Federation, ServerExchange]:
    """Start or resume a run in `out` and let it do the rounds up to `until`."""
    setup = Setup(scenario, out, workers=1, engine="local")
    shelf = open_shelf(setup.assets, scenario)
    host = SimulatedHost(setup, 0, 1)
    app = ClientApp()

    @app.query("devices")
    def devices(message: Message, context: Context) -> Message:
        return describe(message, host.devices())

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        return answer(message, host.answer)

    wire = scenario.exchange
    shared = shelf.context(scenario.seed, 10)
    exchange = ServerExchange(shared, wire.per_round, scenario.rounds, wire.downlink, wire.duration, independent=True)
    federation = Federation(plan_of(setup), shelf, exchange, Checkpoints(out / "checkpoints"), lambda rows: None)
    strategy = FederatedDistillation(exchange, federation.conclude, first_round=federation.knowledge.round_number + 1)
    strategy.traffic = federation.traffic
    strategy.start(LocalGrid(app, 1, {}), num_rounds=until)
    return federation, exchange


def test_a_run_with_a_label_cache_resumes_to_the_result_of_an_undisturbed_one(small: Scenario, tmp_path: Path) -> None:
    scenario = lasting(small, per_round=30, duration=3)
    whole, whole_exchange = federate(scenario, tmp_path / "whole", until=5)
    federate(scenario, tmp_path / "parts", until=3)
    parts, parts_exchange = federate(scenario, tmp_path / "parts", until=5)
    assert parts.knowledge.rows == whole.knowledge.rows
    assert parts_exchange.cache.checksum == whole_exchange.cache.checksum
    assert parts.traffic.uplink == whole.traffic.uplink
    assert parts.traffic.downlink == whole.traffic.downlink
    assert 0 < min(row["asked"] for row in whole.knowledge.rows[2:]) < 30


def test_a_round_in_which_nothing_is_due_teaches_devices_and_students_all_the_same(
    small: Scenario, tmp_path: Path
) -> None:
    everything = small.data.proxy_samples
    federation, exchange = federate(lasting(small, everything, duration=3), tmp_path / "run", until=5)
    rows = federation.knowledge.rows
    assert [row["asked"] for row in rows] == [everything, 0, 0, everything, 0]
    assert rows[1]["answers"] == small.devices
    assert rows[1]["entropy_before"] is rows[1]["entropy_after"] is None
    assert rows[1]["device_accuracy"] != rows[2]["device_accuracy"]
    assert rows[1]["released_accuracy"] != rows[2]["released_accuracy"]
    assert set(exchange.cache.changed) == {5}  # the consensus of round 4


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


def with_rule(scenario: Scenario, rule: str) -> Scenario:
    return scenario.model_copy(update={"consensus": scenario.consensus.model_copy(update={"rule": rule})})


def test_a_federation_that_resumes_knows_who_lied(small: Scenario, tmp_path: Path) -> None:
    checked = with_rule(small, "reputable-experts")
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


def test_late_answers_change_what_their_round_decided_and_judge_nobody_twice(small: Scenario, tmp_path: Path) -> None:
    rows: list[Row] = []
    server = federation(with_rule(small, "reputable-experts"), tmp_path, rows)
    first, second = (replies(server, number) for number in (1, 2))
    in_time = {device: first.votes[device] for device in range(3)}
    server.conclude(replace(first, votes=in_time))
    known = {device: values.copy() for device, values in server.knowledge.reputation.items()}
    before = server.exchange.cache
    late = Reopened(1, first.ids, first.votes, frozenset({3}))
    server.conclude(replace(second, votes={}, reopened=(late,), answered=1))
    cache = server.exchange.cache
    assert np.flatnonzero(cache.changed == 3).tolist() == first.ids.tolist()
    assert (cache.labels[first.ids] != before.labels[first.ids]).any()
    assert (cache.labels[second.ids] == before.labels[second.ids]).all()
    assert server.knowledge.reputation.keys() == {0, 1, 2, 3}
    after = server.knowledge.reputation
    assert all(np.array_equal(after[device], values, equal_nan=True) for device, values in known.items())
    assert [(row["answers"], row["covered"]) for row in rows] == [(3, 1.0), (1, 0.0)]
    assert rows[1]["entropy_before"] is None


def test_of_large_fleets_the_least_reputable_are_logged(
    small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.federation.MOST_REPUTATIONS", 2)
    rows: list[Row] = []
    server = federation(with_rule(small, "reputable-experts"), tmp_path, rows)
    server.conclude(replies(server, 1))
    assert [*rows[0]["reputation"]] == ["0", "3"]  # the liar, and the first of those that are equal
    assert server.knowledge.reputation.keys() == {0, 1, 2, 3}


def test_a_rule_that_keeps_no_reputation_logs_none(small: Scenario, tmp_path: Path) -> None:
    rows: list[Row] = []
    server = federation(with_rule(small, "mean"), tmp_path, rows)
    server.conclude(replies(server, 1))
    assert rows[0]["reputation"] == {}
    assert rows[0]["entropy_before"] > 0


@pytest.mark.parametrize(
    ("rule", "asks"),
    [("reputable-experts", True), ("fedstill.consensus:reputable_experts", True), ("class-experts", False)],
)
def test_the_guard_set_says_where_the_teacher_is_unsure_to_rules_that_may_read_it(
    rule: str, asks: bool, small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    stack = Votes.stack

    def spy(*arguments: Any) -> Votes:
        seen.append(arguments[3] is not None)
        return stack(*arguments)

    monkeypatch.setattr(Votes, "stack", spy)
    server = federation(with_rule(small, rule), tmp_path, [])
    server.conclude(replies(server, 1))
    assert seen == [asks]
