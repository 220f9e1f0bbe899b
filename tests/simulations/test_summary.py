from pathlib import Path
from typing import Any

import pytest

from fedstill.rounds import Traffic
from simulations.baselines.half import Outcome
from simulations.figures import derive
from simulations.scenario import load_scenario
from simulations.setup import Setup
from simulations.summary import summarize

CLASSES = ("pi5", "pi4", "zero2w", "mcu")


def row(**changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(CLASSES, 0)
    facts = {"device_accuracy": nothing, "device_steps": nothing, "device_samples": nothing, "teacher_accuracy": None}
    return {**facts, **changes}


def ratios(changes: list[str], rows: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Return how many times as much FedAvg would have sent, where each of 8 devices sent and got 1 kB in all."""
    setup = Setup(load_scenario("digits", ["devices=8", f"rounds={len(rows)}", *changes]), out, 1, "local")
    sent = dict.fromkeys(range(8), 1000)
    known = Outcome({}, rows, 0.0, Traffic(sent, sent))
    return derive(summarize(setup, known, known.traffic, {}, {}, 0, None, 0.0, 0))


def test_fedavg_is_counted_for_the_devices_that_a_fleets_rounds_asked_and_back_from_those_that_did_not_fail(
    tmp_path: Path,
) -> None:
    def virtual(asked: int, failed: int) -> dict[str, Any]:
        return row(virtual={"device_classes": {name: {"asked": asked, "failed": failed} for name in CLASSES}})

    every = ratios([], [row(), row()], tmp_path)
    always = ratios(["fleet=reference"], [virtual(2, 0), virtual(2, 0)], tmp_path)
    assert always == every
    half = ratios(["fleet=reference"], [virtual(1, 1), virtual(2, 1)], tmp_path)  # 4 of 8 messages each way and class
    assert half["fedavg_ratio_total"] == pytest.approx(every["fedavg_ratio_total"] / 2)
    for name in CLASSES:
        assert half["fedavg_ratio"][name] == pytest.approx(every["fedavg_ratio"][name] / 2)


def test_fedavg_is_counted_for_as_many_devices_as_a_round_asks(tmp_path: Path) -> None:
    every = ratios([], [row(), row()], tmp_path)["fedavg_ratio_total"]
    assert ratios(["exchange.active=6"], [row(), row()], tmp_path)["fedavg_ratio_total"] == pytest.approx(every * 0.75)
