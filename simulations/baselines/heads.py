"""What every message of a method's own begins with: contract version, run, round and rounds."""

from typing import TypeVar

from google.protobuf.message import DecodeError

from fedstill.errors import PacketError
from fedstill.packet import CONTRACT_VERSION
from protos import baselines_pb2 as pb

M = TypeVar("M", pb.Tick, pb.Neighbours, pb.LabelVectors, pb.Weights)


def parsed(
    message: M, seed: int, content: bytes, limit: int, round_number: int | None = None, *, what: str = "message"
) -> M:
    """Parse a serialized message into `message`, check its head and return it.

    Args:
        message: an empty one.
        seed: run seed.
        content: untrusted bytes.
        limit: bytes that no honest message reaches.
        round_number: the round that it must belong to; None: any.
        what: it is, for the error.

    Raises:
        PacketError: it is too long, does not parse, or is of another contract, run or round.
    """
    if len(content) > limit:
        raise PacketError(f"{what} of {len(content)} bytes is over the limit of {limit}")
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise PacketError(f"{what} can't be parsed") from error
    if message.version != CONTRACT_VERSION:
        raise PacketError(f"contract version {message.version}, {CONTRACT_VERSION} expected")
    if message.run != seed:
        raise PacketError(f"{what} of another run")
    if round_number is not None and message.round != round_number:
        raise PacketError(f"{what} of round {message.round}, {round_number} expected")
    if not 1 <= message.round <= message.rounds:
        raise PacketError(f"round {message.round} of {message.rounds}")
    return message
