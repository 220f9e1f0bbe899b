"""Real rounds in virtual time on digits cut to seconds: each policy, killed in between, on other hosts."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from rich.console import Console

from fedstill.flower import answer, describe
from server.federation import Federation
from simulations.backbones import make_backbones
from simulations.engines.local import LocalGrid
from simulations.fleet.plots import answers_plot, time_accuracy_plot
from simulations.fleet.run import clock_of
from simulations.fleet.totals import totals
from simulations.host import SimulatedHost
from simulations.job import federate, plan_of
from simulations.progress import RunProgress
from simulations.scenario import Scenario, resolved
from simulations.setup import Setup
from simulations.shelf import open_shelf

ROUNDS = 3
KIND: dict[str, Any] = {
    "predict_samples_per_second": 1000,
    "up_kbit_per_second": 1000,
    "down_kbit_per_second": 1000,
    "power": {"compute_watts": 5, "network_watts": 2, "idle_watts": 1},
}
SPEEDS = {"pi5": 400, "pi4": 300, "zero2w": 200, "mcu": 80}
POLICIES: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "deadline": {"deadline_seconds": 6, "server_seconds": 1},
    "buffered": {"buffer": 2},
}


class KilledError(Exception):
    """Ends a run where a signal would."""


class Progress(RunProgress):
    """Shows nothing, and kills a run after a round."""

    def __init__(self, until: int | None) -> None:
        super().__init__(Console(quiet=True))
        self._until = until

    def step(self, done: int, note: str = "") -> None:
        super().step(done, note)
        if note and done == self._until:
            raise KilledError


def timed(small: Scenario, policy: str) -> Scenario:
    classes = {name: {**KIND, "train_samples_per_second": speed} for name, speed in SPEEDS.items()}
    if policy == "deadline":
        classes["pi4"]["failure"] = 0.3
    fleet = {"classes": classes, "rounds": {"policy": policy, **POLICIES[policy]}}
    raw = {**small.model_dump(exclude_none=True), "rounds": ROUNDS, "fleet": fleet}
    if policy != "deadline":  # one with a teacher is enough
        del raw["teacher"]
        raw["data"] = {**raw["data"], "server_samples": 0, "guard_samples": 0}
    return resolved(raw, [], "test")


def play(scenario: Scenario, out: Path, hosts: int, until: int | None = None) -> Federation:
    """Run or resume a scenario's rounds; with `until`, as if it were killed after that round."""
    setup = Setup(scenario, out, workers=1, engine="local")
    shelf = open_shelf(setup.assets, scenario)
    make_backbones(scenario, shelf)
    carried = [SimulatedHost(setup, place, hosts) for place in range(hosts)]
    app = ClientApp()

    @app.query("devices")
    def devices(message: Message, context: Context) -> Message:
        return describe(message, carried[int(context.node_config["partition-id"])].devices())

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        return answer(message, carried[int(context.node_config["partition-id"])].answer)

    try:
        with Progress(until) as progress:
            return federate(LocalGrid(app, hosts, {}), setup, shelf, plan_of(setup), progress)
    except KilledError:
        return play(scenario, out, hosts=3)


@pytest.mark.parametrize("policy", ["deadline", "buffered"])
def test_a_killed_run_on_other_hosts_gives_the_rounds_of_an_undisturbed_one(
    policy: str, small: Scenario, tmp_path: Path
) -> None:
    scenario = timed(small, policy)
    whole = play(scenario, tmp_path / "whole", hosts=1)
    rows = whole.knowledge.rows
    parts = play(scenario, tmp_path / "parts", hosts=2, until=1)
    assert parts.knowledge.rows == rows
    assert parts.exchange.cache.checksum == whole.exchange.cache.checksum
    assert parts.traffic.uplink == whole.traffic.uplink
    assert parts.traffic.downlink == whole.traffic.downlink

    clock = clock_of(scenario, tmp_path)
    assert clock is not None
    found = totals(clock.fleet, rows)
    assert found["policy"] == policy
    assert found["seconds"] == rows[-1]["virtual"]["end_seconds"] > 0
    classes = found["device_classes"]
    assert all(facts["energy_joules"] > 0 for facts in classes.values())
    assert classes["mcu"]["deadline_misses"] > 0
    assert sum(facts["late_answers"] for facts in classes.values()) > 0
    summary = {"device_classes": dict.fromkeys(SPEEDS)}
    for plot in (time_accuracy_plot, answers_plot):
        assert plot(rows, summary).startswith("<svg")


def test_synchronous_rounds_of_a_fleet_that_is_always_there_differ_in_nothing_but_their_time(
    small: Scenario, tmp_path: Path
) -> None:
    scenario = timed(small, "synchronous").model_copy(update={"rounds": 2})
    rows = play(scenario, tmp_path / "timed", hosts=1).knowledge.rows
    virtual = [row.pop("virtual") for row in rows]
    assert rows == play(scenario.model_copy(update={"fleet": None}), tmp_path / "plain", hosts=1).knowledge.rows
    slowest = [max(found["answer_seconds"]["slowest"] for found in row["device_classes"].values()) for row in virtual]
    assert [row["round_seconds"] for row in virtual] == pytest.approx(slowest)


def test_a_round_in_which_only_observers_come_in_time_waits_for_the_votes_of_later_ones(
    small: Scenario, tmp_path: Path
) -> None:
    classes = {name: {**KIND, "train_samples_per_second": 10} for name in SPEEDS}
    raw = {
        **small.model_dump(exclude_none=True),
        "rounds": ROUNDS,
        "fleet": {"classes": classes, "rounds": {"policy": "deadline", "deadline_seconds": 2}},
    }
    changes = ["device_classes.zero2w.learner='observer'", "exchange.quorum=0.1"]
    rows = play(resolved(raw, changes, "test"), tmp_path / "run", hosts=1).knowledge.rows
    assert [(row["answers"], row["trained"], row["observed"]) for row in rows] == [(1, 0, 1)] * ROUNDS
    assert [row["virtual"]["device_classes"]["pi5"]["asked"] for row in rows] == [1, 0, 0]  # still at work
