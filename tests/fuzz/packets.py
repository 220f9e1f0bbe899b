"""Fuzz the decoders guided by coverage: `python -m tests.fuzz.packets -max_total_time=120` (needs `fedstill[fuzz]`).

Each input is tried as a packet and as a request, as it is and with a checksum that holds, and as the payload of a
codec. Anything but valid labels or a `PacketError` is a crash. Options are libFuzzer's; a folder given as an argument
keeps the inputs found. Without one the run starts from honest packets.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["fedstill", "protos"]):
    from google.protobuf.message import DecodeError

    from fedstill import packet
    from fedstill.cache import LabelCache
    from fedstill.codecs import codec
    from fedstill.codecs.bits import Reader
    from fedstill.delta import Base
    from fedstill.errors import PacketError
    from fedstill.exchange import ServerExchange, open_request
    from fedstill.packet import Context, decode, encode
    from fedstill.soft_labels import SoftLabels, soft_labels
    from protos import soft_labels_pb2 as pb

CONTEXT = Context(seed=4, proxy_digest=b"12345678", proxy_size=24, classes=5)
NAMES = ("float32", "float16", "logits16", *(f"simplex{bits}" for bits in range(1, 9)), "top1", "top2", "top3")
ROWS = np.random.default_rng(0).dirichlet(np.full(5, 0.1), 24).astype(np.float32)
LABELS = soft_labels(np.arange(24), ROWS)
BASES = {name: Base.nothing(name, 24, 5).extended(LABELS, 2) for name in NAMES}
CACHE = LabelCache(ROWS, np.full(24, 1), version=1)


def check(found: SoftLabels) -> None:
    """Fail on labels that no honest sender has."""
    rows = found.probabilities[found.present]
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max(initial=0) < 3e-3


def as_packet(content: bytes) -> None:
    """Try bytes as a packet, then with a checksum that holds and the fields that any packet of the run has."""
    with suppress(PacketError):
        check(decode(CONTEXT, content).labels)
    try:
        message = pb.Packet.FromString(content)
    except DecodeError:
        return
    message.version, message.run, message.classes = packet.CONTRACT_VERSION, CONTEXT.seed, CONTEXT.classes
    message.proxy_digest, message.proxy_size = CONTEXT.proxy_digest, CONTEXT.proxy_size
    message.checksum = packet._checksum(message)
    with suppress(PacketError):
        name = packet.encoding_of(CONTEXT, message)
        check(decode(CONTEXT, message.SerializeToString(), base=BASES.get(name)).labels)


def as_request(content: bytes) -> None:
    """Try bytes as a request, then with a checksum that holds."""
    try:
        message = pb.RoundRequest.FromString(content)
    except DecodeError:
        message = pb.RoundRequest()
    message.consensus.checksum = packet._checksum(message.consensus)
    for candidate in (content, message.SerializeToString()):
        try:
            task = open_request(CONTEXT, CACHE, candidate)
        except PacketError:
            continue
        check(soft_labels(task.cache.known, task.cache.labels[task.cache.known]))


def as_payload(content: bytes) -> None:
    """Try bytes as what a codec of the first byte's choice packs and codes."""
    name = NAMES[content[0] % len(NAMES)] if content else NAMES[0]
    own, base = codec(name, 5), BASES[name]
    for known in (base.known, ~base.known):
        for plain in (True, False):
            try:
                if plain:
                    codes = own.unpack(content[1:], 24)
                else:
                    reader = Reader(content[1:])
                    codes = own.code(reader, np.zeros_like(base.codes), base.codes, known)
                    reader.finish()
                own.check(codes)
            except PacketError:
                continue
            check(soft_labels(np.arange(24), own.restore(codes)))


def try_everything(content: bytes) -> None:
    """Try one input in all ways."""
    as_packet(content)
    as_request(content)
    as_payload(content)


def write_seeds(folder: Path) -> None:
    """Write honest packets, requests and payloads to start from."""
    for place, name in enumerate(NAMES):
        for coded in (False, True):
            for base in (None, BASES[name]):
                message = encode(
                    CONTEXT,
                    LABELS,
                    round_number=3,
                    samples_round=3,
                    encoding=name,
                    entropy_coded=coded,
                    base=base if coded else None,
                )
                stem = f"{name}-{coded}-{base is None}"
                (folder / f"packet-{stem}").write_bytes(message.SerializeToString())
                (folder / f"payload-{stem}").write_bytes(bytes([place]) + message.payload)
        exchange = ServerExchange(CONTEXT, 8, 9, name, entropy_coded=True, delta=True)
        exchange.publish(0, np.arange(24), ROWS)
        exchange.publish(1, np.arange(24), ROWS)
        (folder / f"request-{name}").write_bytes(exchange.request(0, 3))


def main() -> None:
    """Run libFuzzer."""
    arguments = list(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        if not any(not argument.startswith("-") for argument in arguments[1:]):
            write_seeds(Path(folder))
            arguments.append(folder)
        atheris.Setup(arguments, try_everything)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
