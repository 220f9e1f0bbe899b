"""A run with coded deltas and encodings by device class: the same labels as without, both sides equal, resumable."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from client.app import app as client_app
from client.disk import unpacked
from fedstill.codecs import codec
from protos import soft_labels_pb2 as pb
from server.app import app as server_app
from simulations.engines.local import LocalGrid
from simulations.launch import prepare
from simulations.run_folder import CONFIG
from simulations.scenario import Scenario, load_scenario

OWN = {
    "pi5": ("simplex8", "simplex8"),
    "pi4": ("simplex4", "logits16"),
    "zero2w": ("top3", "simplex4"),
    "mcu": ("simplex1", "simplex1"),
}


def scenario_of(small: Scenario, *changes: str) -> Scenario:
    raw = small.model_dump()
    raw["rounds"] = 4
    raw["exchange"].update(per_round=60)
    for name, (uplink, downlink) in OWN.items():
        raw["device_classes"][name].update(uplink=uplink, downlink=downlink)
    raw["exchange"].update(dict.fromkeys(changes, True))
    return Scenario.model_validate(raw)


class KilledError(Exception):
    """The run ends here, as when its process is killed."""


class MortalGrid(LocalGrid):
    """A LocalGrid that fails at the n-th message of training."""

    left: int

    def _deliver(self, message: Message) -> Message:
        if message.metadata.message_type.startswith("train"):
            self.left -= 1
            if self.left < 0:
                raise KilledError
        return super()._deliver(message)


def run(scenario: Scenario, out: Path, messages: int) -> None:
    """Run, or go on, until two hosts together have worked on that many messages."""
    if not out.exists():
        prepare(scenario, out)
    config: dict[str, bool | float | int | str] = {
        "scenario": str(out / CONFIG),
        "out": str(out),
        "workers": 1,
        "job": "simulations.job:run",
        "host": "simulations.host:build",
    }
    grid = MortalGrid(client_app, 2, config)
    grid.left = messages
    with pytest.raises(KilledError):
        server_app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))


def rounds(out: Path, *, bytes_too: bool) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    if not bytes_too:
        for row in found:
            del row["uplink_bytes"], row["downlink_bytes"]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_options: list[str]) -> dict[str, Path]:
    """Three rounds in full, with coded deltas, and with those but killed in the middle of the third and resumed."""
    small = load_scenario("digits", small_options[1::2])
    folder = tmp_path_factory.mktemp("runs")
    run(scenario_of(small), folder / "plain", messages=6)
    with_delta = scenario_of(small, "entropy_coding", "delta")
    run(with_delta, folder / "delta", messages=6)
    run(with_delta, folder / "killed", messages=5)
    run(with_delta, folder / "killed", messages=2)
    return {path.name: path for path in folder.iterdir()}


def test_coded_deltas_change_the_bytes_of_a_run_and_nothing_else(runs: dict[str, Path]) -> None:
    assert rounds(runs["delta"], bytes_too=False) == rounds(runs["plain"], bytes_too=False)
    coded, plain = rounds(runs["delta"], bytes_too=True), rounds(runs["plain"], bytes_too=True)
    assert coded[-1]["uplink_bytes"] < plain[-1]["uplink_bytes"]
    assert coded[-1]["downlink_bytes"] < plain[-1]["downlink_bytes"]


def test_a_run_with_deltas_that_was_killed_resumes_to_the_same_result_and_bytes(runs: dict[str, Path]) -> None:
    assert rounds(runs["killed"], bytes_too=True) == rounds(runs["delta"], bytes_too=True)


def test_every_device_holds_what_the_server_thinks_that_its_class_decoded(runs: dict[str, Path]) -> None:
    newest = torch.load(runs["delta"] / "checkpoints" / "round-00003" / "state.pt", weights_only=True)
    before = newest["previous"]
    for device, (_, downlink) in enumerate(OWN.values()):
        held = unpacked((runs["delta"] / "devices" / f"device-{device:05d}" / "round-00003.state").read_bytes()).more
        assert held["version"] == before[downlink]["version"] == 3
        assert torch.equal(held["labels"], before[downlink]["labels"])


def test_each_class_sends_in_its_own_encoding(runs: dict[str, Path]) -> None:
    for device, (uplink, _) in enumerate(OWN.values()):
        held = unpacked((runs["plain"] / "devices" / f"device-{device:05d}" / "round-00003.state").read_bytes())
        message = pb.Packet.FromString(held.answer.packet)
        assert codec(uplink, 10).plain_bytes(60) - len(message.payload) in (0, 1)
