"""Promise 1: no round message carries a model parameter or a raw sample. Every message of a run is walked."""

import json
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Packet
from google.protobuf.unknown_fields import UnknownFieldSet

from client.app import app as client_app
from client.disk import unpacked
from fedstill.flower.adapter import serialize
from protos import baselines_pb2
from protos import soft_labels_pb2 as pb
from server.app import app as server_app
from simulations.engines.local import LocalGrid
from simulations.launch import prepare
from simulations.methods import load_method, methods
from simulations.run_folder import CONFIG
from simulations.scenario import Scenario
from simulations.shelf import Shelf

METRICS = {"accuracy", "steps", "samples"}


class LeakError(AssertionError):
    """A message carries what must not leave."""


def check_message(message: Message, forbidden: list[bytes]) -> None:
    """Fail on an array, on bytes that are not a packet or a request, on an unknown metric, and on known secrets."""
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            raise LeakError(f"array record {name}")
        if isinstance(record, MetricRecord):
            unknown = {key.partition(".")[2] for key in record} - METRICS
            if unknown:
                raise LeakError(f"metrics {unknown}")
        if isinstance(record, ConfigRecord):
            for value in record.values():
                if isinstance(value, bytes):
                    _check_packet(value)
                elif not isinstance(value, int | str):
                    raise LeakError(f"value of type {type(value).__name__} in {name}")
    content = serialize(message)
    for secret in forbidden:
        if secret in content:
            raise LeakError("bytes of a parameter or a sample")


def _fits(packet: Packet, content: bytes) -> bool:
    """Parse, and tell whether everything was of this kind; one kind read as another leaves unknown fields."""
    try:
        packet.ParseFromString(content)
    except DecodeError:
        return False
    return len(UnknownFieldSet(packet)) == 0


def _check_packet(content: bytes) -> None:
    request, packet, vectors = pb.RoundRequest(), pb.Packet(), baselines_pb2.LabelVectors()
    if _fits(request, content):
        packet = request.consensus
    elif not _fits(packet, content):
        neighbours = baselines_pb2.Neighbours()
        if _fits(neighbours, content):
            for part in (*neighbours.labels, *([neighbours.start] if neighbours.start else [])):
                _check_packet(part)
            return
        if not _fits(vectors, content):
            raise LeakError("fields outside the contract")
        if len(vectors.vectors) > 4 * vectors.classes**2 or len(vectors.present) > vectors.classes:
            raise LeakError("a payload larger than a soft label per class")
        return
    if len(UnknownFieldSet(packet)) or len(UnknownFieldSet(packet.samples)):
        raise LeakError("fields outside the contract")
    width = {
        pb.PROBABILITY_FLOAT32: 4,
        pb.PROBABILITY_FLOAT16: 2,
        pb.CENTRED_LOGITS_FLOAT16: 2,
        pb.SIMPLEX_8BIT: 1,
        pb.SIMPLEX: 1,
        pb.TOP_K: 1,
        pb.ENCODING_UNSPECIFIED: 0,
    }
    if len(packet.payload) > packet.proxy_size * packet.classes * width[packet.encoding]:
        raise LeakError("a payload larger than soft labels about the whole proxy set")


class WatchedGrid(LocalGrid):
    """A LocalGrid that keeps every message of both directions."""

    seen: list[Message]

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        self.seen += [message, reply]
        return reply


def watched(scenario: Scenario, out: Path, hosts: int = 2) -> list[Message]:
    """Run a scenario into `out` and return every message."""
    prepare(scenario, out)
    config: dict[str, bool | float | int | str] = {
        "scenario": str(out / CONFIG),
        "out": str(out),
        "workers": 1,
        "job": "simulations.job:run",
        "host": "simulations.host:build",
    }
    grid = WatchedGrid(client_app, hosts, config)
    grid.seen = []
    server_app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))
    return grid.seen


def secrets_of(out: Path) -> list[bytes]:
    """Return what must not leave: private samples, and the beginning of each weight on a device's disk."""
    shelf = Shelf(out / "assets")
    secrets = [image.tobytes() for part in (shelf.private, shelf.server, shelf.test) for image in part.images]
    for path in (out / "devices").rglob("round-*.state"):
        student = unpacked(path.read_bytes()).student
        secrets += [tensor.numpy().tobytes()[:64] for name, tensor in student.items() if name.endswith("weight")]
    return secrets


def test_every_message_of_a_run_carries_soft_labels_only(small: Scenario, tmp_path: Path) -> None:
    messages = watched(small, tmp_path / "run")
    assert len(messages) == 2 * 2 + 2 * 2 * small.rounds
    secrets = secrets_of(tmp_path / "run")
    for message in messages:
        check_message(message, secrets)


@pytest.mark.parametrize("method", [name for name in methods() if name != "fedstill"])
def test_of_all_methods_only_fedavg_and_feddf_send_weights(
    method: str, small_options: list[str], tmp_path: Path
) -> None:
    scenario = load_method("digits", method, small_options[1::2])
    messages = watched(scenario, tmp_path / "run")
    if method in ("local-only", "centralized"):
        assert messages == []
        return
    rounds = [message for message in messages if message.metadata.message_type == "train.distill"]
    if method in ("fedavg", "feddf"):
        for message in rounds:
            assert "weights" in message.content.config_records
            assert "packets" not in message.content.config_records
            with pytest.raises(LeakError, match=r"outside the contract|larger than"):
                check_message(message, [])
        return
    secrets = secrets_of(tmp_path / "run")
    for message in messages:
        check_message(message, secrets)


def test_with_one_device_per_host_packets_and_envelopes_are_all_bytes_of_the_messages(
    small: Scenario, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    wire = small.exchange.model_copy(update={"duration": 3, "draw": "independent"})
    seen = watched(small.model_copy(update={"exchange": wire}), out, hosts=small.devices)
    total = json.loads((out / "summary.json").read_text())["wire"]
    packets = total["uplink_bytes"] + total["downlink_bytes"]
    assert packets + total["envelope_bytes"] == sum(len(serialize(message)) for message in seen)
    assert total["messages"] == len(seen) == 2 * small.devices * (1 + small.rounds)
    carried = [
        len(value)
        for message in seen
        for value in message.content.config_records.get("packets", ConfigRecord()).values()
        if isinstance(value, bytes)
    ]
    assert packets == sum(carried)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({"weights": ArrayRecord([torch.zeros(3).numpy()])}),
        RecordDict({"metrics": MetricRecord({"0.gradient": 1.0})}),
        RecordDict({"packets": ConfigRecord({"0": [0.1, 0.2]})}),
        RecordDict({"packets": ConfigRecord({"0": b"raw sample"})}),
    ],
)
def test_the_check_itself_fails_on_a_leak(content: RecordDict) -> None:
    LocalGrid(client_app, 1, {})
    with pytest.raises(Exception, match=r"array record|metrics|list|outside the contract"):
        check_message(Message(content, 2, "train.distill"), [b"raw sample"])
