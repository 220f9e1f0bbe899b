"""The rounds that all baselines with messages share: exchange, conclude, measure, checkpoint."""

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedstill.files import write_atomic
from fedstill.flower import RoundPolicy, RoundStrategy
from fedstill.learning import State
from fedstill.rounds import RoundReplies, Traffic, prequential_by_class, work_by_class
from fedstill.workers import unordered
from server.checkpoints import Checkpoints
from server.federation import measure
from simulations.baselines.half import A, Outcome, Row, ServerHalf
from simulations.progress import RunProgress
from simulations.run_folder import ROUNDS
from simulations.setup import Setup
from simulations.shelf import Shelf


class Loop:
    """Concludes rounds for a server half and keeps what a run leaves.

    Args:
        half: the method.
        setup: the run.
        shelf: its data.
        progress: told of each finished round.
    """

    def __init__(self, half: ServerHalf[A], setup: Setup, shelf: Shelf, progress: RunProgress) -> None:
        self._half: ServerHalf[Any] = half
        self._setup = setup
        self._shelf = shelf
        self._progress = progress
        self._checkpoints = Checkpoints(setup.out / "checkpoints")
        self.outcome = Outcome(half.models, [], 0.0, Traffic())
        self._resume()
        self._started = time.monotonic()

    def conclude(self, replies: RoundReplies[Any]) -> Mapping[str, float]:
        """Let the half learn from a round's answers, measure its models, and write the checkpoint."""
        self._half.conclude(replies.round_number, replies.votes)
        outcome = self.outcome
        outcome.models = self._half.models
        outcome.rows.append(self._row(replies))
        now = time.monotonic()
        outcome.seconds += now - self._started
        self._started = now
        self._save()
        write_rows(self._setup, outcome.rows)
        self._progress.step(len(outcome.rows), note(outcome.rows[-1]))
        return {"answers": float(len(replies.votes))}

    def _row(self, replies: RoundReplies[Any]) -> Row:
        setup = self._setup
        calls = [(setup.scenario.task, name, state, self._shelf.test) for name, state in self._half.models.items()]
        scores = dict(unordered(measure, calls, setup.workers))
        by_model = {name: scores[place] for place, name in enumerate(self._half.models)}
        by_class: dict[str, list[float]] = {name: [] for name in setup.scenario.device_classes}
        for device, metrics in replies.metrics.items():
            if "accuracy" in metrics:
                by_class[replies.device_classes[device]].append(metrics["accuracy"])
        kinds = setup.scenario.device_classes
        found = row(
            replies.round_number,
            answers=len(replies.votes),
            refused={str(device): reason for device, reason in sorted(replies.refused.items())},
            released={name: by_model.get(kind.student) for name, kind in kinds.items()},
            devices={name: float(np.mean(found)) if found else None for name, found in by_class.items()},
            work=work_by_class(replies, kinds),
            traffic=self.outcome.traffic,
        )
        return {**found, **prequential_by_class(replies, kinds)}

    def _save(self) -> None:
        outcome, traffic = self.outcome, self.outcome.traffic
        self._checkpoints.save(
            len(outcome.rows),
            {
                "models": self._half.models,
                "half": self._half.stored(),
                "rows": outcome.rows,
                "seconds": outcome.seconds,
                "uplink": dict(traffic.uplink),
                "downlink": dict(traffic.downlink),
                "messages": traffic.messages,
                "envelope_bytes": traffic.envelope_bytes,
            },
        )

    def _resume(self) -> None:
        stored = self._checkpoints.newest()
        if stored is None:
            return
        models: dict[str, State] = stored["models"]
        self._half.models = models
        self._half.restore(stored["half"])
        traffic = Traffic(stored["uplink"], stored["downlink"], stored["messages"], stored["envelope_bytes"])
        self.outcome = Outcome(models, stored["rows"], stored["seconds"], traffic)


def rounds(grid: Grid, half: ServerHalf[A], setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run all rounds of a method that are not done yet, and return what they left."""
    scenario = setup.scenario
    loop = Loop(half, setup, shelf, progress)
    finished = len(loop.outcome.rows)
    wire = scenario.exchange
    progress.stage("rounds", scenario.rounds, finished, parts=wire.active or scenario.devices)
    policy = RoundPolicy(scenario.devices, wire.quorum, wire.timeout, wire.ttl, wire.active, scenario.seed)
    strategy: RoundStrategy[A] = RoundStrategy(
        half, loop.conclude, policy, finished + 1, sends_weights=scenario.method.sends_weights
    )
    strategy.traffic, strategy.heard = loop.outcome.traffic, progress.heard
    strategy.start(grid, num_rounds=scenario.rounds, timeout=wire.timeout)
    return loop.outcome


def row(
    round_number: int,
    *,
    answers: int,
    refused: Mapping[str, str],
    released: Mapping[str, float | None],
    devices: Mapping[str, float | None],
    work: Mapping[str, Mapping[str, int]],
    traffic: Traffic,
) -> Row:
    """Return a line of `rounds.jsonl`: the keys of a federation's, null where a method has no such thing."""
    return {
        "round": round_number,
        "answers": answers,
        "refused": dict(refused),
        "abstained": None,
        "entropy_before": None,
        "entropy_after": None,
        "teacher_accuracy": None,
        "teacher_update_kept": None,
        "guard_before": None,
        "guard_after": None,
        "released_accuracy": dict(released),
        "device_accuracy": dict(devices),
        **{key: dict(sums) for key, sums in work.items()},
        "uplink_bytes": sum(traffic.uplink.values()),
        "downlink_bytes": sum(traffic.downlink.values()),
    }


def note(last: Row) -> str:
    """Return a word about a round for the progress display."""
    for key, word in (("released_accuracy", "models"), ("device_accuracy", "devices")):
        scores = [score for score in last[key].values() if score is not None]
        if scores:
            return f"{word} {min(scores):.3f} to {max(scores):.3f}"
    return ""


def write_rows(setup: Setup, rows: list[Row]) -> None:
    """Write the finished rounds."""
    write_atomic(setup.out / ROUNDS, "".join(json.dumps(found) + "\n" for found in rows).encode())
