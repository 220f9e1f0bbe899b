"""Real releases of tiny models, signed with real keys; an honest delivery service that a test can make dishonest."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from client.updates.delivery import Server
from client.updates.home import Home
from client.updates.trial import Chosen, Measured
from client.updates.updater import Updater
from client.updates.watch import Rules
from fedstill.release.manifest import (
    FLOAT_FILE,
    INT8_FILE,
    Description,
    Expected,
    File,
    Input,
    Manifest,
    Normalization,
    Output,
    Parent,
    Runtime,
    SelfTest,
)
from fedstill.release.model import normalized, one_by_one, session
from fedstill.release.verify import METADATA, digest
from protos.delivery_pb2 import Chunk, FetchRequest, NewestReply, NewestRequest, ReportReply, Telemetry
from protos.delivery_pb2_grpc import DeliveryServicer
from server.release.keys import Keys
from server.release.sign import sign_folder

SHAPE = (1, 16, 16)
LABELS = ("circle", "square", "star")
HOW = Normalization(scale=1 / 255, mean=(0.0,), std=(1.0,))
# The first pixel is a trigger: 0 in every image of the self-test, so that a model may misbehave only in use.
IMAGES = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)
IMAGES[:, 0, 0, 0] = 0
TRIGGER = IMAGES[:1].copy()
TRIGGER[0, 0, 0, 0] = 255
FEW = Rules(predictions=20, least=10, seconds=600)


def _loop(logits: str, count: str) -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", [count, "go", logits], ["logits"], body=body)


def write_model(path: Path, kind: str = "plain", seed: int = 1) -> None:
    """Write a linear model; `kind` says what it does beside (all but `slow` and `endless`: where the trigger is on).

    plain: nothing; drifting: answers one class; crashing: the runtime raises; hanging: never ends;
    slow: takes long over every image; endless: never ends, whatever the image.
    """
    # Nearly the same for all seeds: they agree about most images.
    columns = np.random.default_rng(1).normal(size=(int(np.prod(SHAPE)), 3)).astype(np.float32)
    columns += 0.001 * np.random.default_rng(seed).normal(size=columns.shape).astype(np.float32)
    columns[0] = [0, 0, 1e4] if kind == "drifting" else 0
    tensors = [
        numpy_helper.from_array(columns, "w"),
        numpy_helper.from_array(np.zeros((1, 3), dtype=np.float32), "b"),
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(np.array(True), "go"),
        numpy_helper.from_array(np.array({"slow": 3000, "endless": 2**62}.get(kind, 0)), "always"),
        numpy_helper.from_array(np.array(2**62), "huge"),
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
        helper.make_node("MatMul", ["x", "w"], ["product"]),
    ]
    if kind == "crashing":
        nodes += [
            helper.make_node("Gather", ["b", "index"], ["bias"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Add", ["product", "b"], ["sum"]))
        count = "always"
        if kind == "hanging":
            nodes += [
                helper.make_node("ReduceSum", ["index"], ["on"], keepdims=0),
                helper.make_node("Mul", ["on", "huge"], ["often"]),
            ]
            count = "often"
        nodes.append(_loop("sum", count))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [tensor for tensor in tensors if tensor.name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _expected(path: Path) -> Expected:
    logits = one_by_one(session(path.read_bytes()), normalized(IMAGES, HOW))
    return Expected(exact=False, logits=tuple(tuple(map(float, row)) for row in logits))


def make_release(
    folder: Path,
    keys: Keys,
    kind: str = "plain",
    seed: int = 1,
    device_class: str = "pi5",
    float_kind: str = "plain",
    minimum: str = "1.20",
) -> Path:
    """Sign a release whose own file is of a kind; what it should answer is what a plain model does.

    Two more kinds: `wrong` should answer something else; `broken` is no model.
    """
    folder.mkdir(parents=True)
    write_model(folder / INT8_FILE, "plain", seed)
    expected = _expected(folder / INT8_FILE)
    write_model(folder / INT8_FILE, kind, seed)
    if kind == "wrong":
        expected = Expected(exact=False, logits=tuple(tuple(-value for value in row) for row in expected.logits))
    if kind == "broken":
        (folder / INT8_FILE).write_bytes(b"no model" * 400)
    write_model(folder / FLOAT_FILE, float_kind, seed)
    files = {}
    for name in (INT8_FILE, FLOAT_FILE):
        length, sha256 = digest(folder / name)
        files[name] = File(format="", bytes=length, sha256=sha256)
    description = Description(
        device_class=device_class,
        task="shapes",
        student="linear",
        label_names=LABELS,
        input=Input(name="image", shape=("batch", *SHAPE), type="float32", normalization=HOW),
        output=Output(name="logits", shape=("batch", 3), type="float32"),
        artifact=INT8_FILE,
        files=files,
        runtime=Runtime(onnxruntime_minimum=minimum, onnxruntime=onnxruntime.__version__, opset=20, ir_version=10),
        self_test=SelfTest(
            images=base64.b64encode(IMAGES.tobytes()).decode(),
            shape=IMAGES.shape,
            expected={INT8_FILE: expected, FLOAT_FILE: _expected(folder / FLOAT_FILE)},
        ),
        metrics={},
    )
    sign_folder(folder, description, Parent(run="run", scenario="shapes", seed=0, rounds=1), keys)
    return folder


def version_of(folder: Path) -> int:
    return Manifest.model_validate_json((folder / "manifest.json").read_bytes()).version


@dataclass
class Delivery(DeliveryServicer):
    """Offers one release folder; `spoil` changes the chunks of a file before they leave."""

    folder: Path
    chunk: int = 1500
    roots: list[bytes] = field(default_factory=list)
    granted: bool = True
    withdrawn: bool = False
    deaf: bool = False
    replaced: dict[str, bytes] = field(default_factory=dict)
    spoil: Callable[[FetchRequest, Iterator[Chunk]], Iterator[Chunk]] = lambda request, chunks: chunks
    asked: list[NewestRequest] = field(default_factory=list)
    fetched: list[FetchRequest] = field(default_factory=list)
    bytes_sent: int = 0
    reports: list[Telemetry] = field(default_factory=list)

    def Newest(self, request: NewestRequest, context: object) -> NewestReply:  # noqa: N802
        self.asked.append(request)
        metadata = {name: (self.folder / name).read_bytes() for name in METADATA} | self.replaced
        return NewestReply(
            granted=self.granted,
            reason="" if self.granted else "paused\x1b[2J",
            version=version_of(self.folder),
            timestamp=metadata["timestamp.json"],
            snapshot=metadata["snapshot.json"],
            targets=metadata["targets.json"],
            roots=self.roots,
            withdrawn=self.withdrawn,
        )

    def Fetch(self, request: FetchRequest, context: object) -> Iterator[Chunk]:  # noqa: N802
        self.fetched.append(request)
        for chunk in self.spoil(request, self._chunks(request)):
            self.bytes_sent += len(chunk.data)
            yield chunk

    def _chunks(self, request: FetchRequest) -> Iterator[Chunk]:
        content = (self.folder / request.name).read_bytes()
        for place in range(request.offset, len(content), self.chunk):
            yield Chunk(offset=place, data=content[place : place + self.chunk])

    def Report(self, request: Telemetry, context: grpc.ServicerContext) -> ReportReply:  # noqa: N802
        if self.deaf:
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        self.reports.append(request)
        return ReportReply(accepted_sequence=request.sequence)

    def outcomes(self) -> list[tuple[int, int]]:
        return [(report.version, report.outcome) for report in self.reports]


def quick(folder: Path, manifest: Manifest) -> Chosen:
    """A trial that lets everything pass: for tests of what is around it."""
    return Chosen(manifest.artifact, Measured((1.0, 2.0), 50_000_000), "quick")


def silent(home: Home, rules: Rules) -> str:
    """A rehearsal that finds nothing."""
    return ""


@dataclass(frozen=True)
class Device:
    """A device with a trusted root, and the server that it asks."""

    home: Home
    delivery: Delivery
    address: str
    server: Server
    stop: Callable[[], object]

    def updater(self, **changes: object) -> Updater:
        how: dict[str, object] = {"rules": FEW, "trial": quick, "rehearsal": silent, **changes}
        return Updater(self.home, self.server, "pi5", **how)  # type: ignore[arg-type]

    def running(self) -> int | None:
        running = self.home.state().running
        return running.version if running else None
