"""Promise 1: no round message carries a model parameter or a raw sample. Every message of a run is walked."""

from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from google.protobuf.unknown_fields import UnknownFieldSet

from client.app import app as client_app
from fedstill.flower.adapter import serialize
from protos import soft_labels_pb2 as pb
from server.app import app as server_app
from simulations.commands import _prepare
from simulations.engines.local import LocalGrid
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


def _check_packet(content: bytes) -> None:
    request, packet = pb.RoundRequest(), pb.Packet()
    request.ParseFromString(content)
    if len(UnknownFieldSet(request)) == 0:  # a packet read as a request leaves unknown fields
        packet = request.consensus
    else:
        packet.ParseFromString(content)
    if len(UnknownFieldSet(packet)) or len(UnknownFieldSet(packet.samples)):
        raise LeakError("fields outside the contract")
    width = {pb.PROBABILITY_FLOAT32: 4, pb.PROBABILITY_FLOAT16: 2, pb.SIMPLEX_8BIT: 1, pb.ENCODING_UNSPECIFIED: 0}
    if len(packet.payload) > packet.proxy_size * packet.classes * width[packet.encoding]:
        raise LeakError("a payload larger than soft labels about the whole proxy set")


class WatchedGrid(LocalGrid):
    """A LocalGrid that keeps every message of both directions."""

    seen: list[Message]

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        self.seen += [message, reply]
        return reply


def test_every_message_of_a_run_carries_soft_labels_only(small: Scenario, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _prepare(small, out)
    config: dict[str, bool | float | int | str] = {
        "scenario": str(out / CONFIG),
        "out": str(out),
        "workers": 1,
        "job": "simulations.job:run",
        "host": "simulations.host:build",
    }
    grid = WatchedGrid(client_app, 2, config)
    grid.seen = []
    server_app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))
    shelf = Shelf(out / "assets")
    secrets = [image.tobytes() for part in (shelf.private, shelf.server, shelf.test) for image in part.images]
    for path in (out / "devices").rglob("round-*.pt"):
        student = torch.load(path, weights_only=True)["student"]
        secrets += [tensor.numpy().tobytes()[:64] for name, tensor in student.items() if name.endswith("weight")]
    assert len(grid.seen) == 2 * 2 + 2 * 2 * small.rounds
    for message in grid.seen:
        check_message(message, secrets)


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
    with pytest.raises(Exception, match=r"array record|metrics|list|parameter or a sample|parsing"):
        check_message(Message(content, 2, "train.distill"), [b"raw sample"])
