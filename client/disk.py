"""A device's disk: its state after each of its last two rounds, a flat file each.

A file is a safetensors block of all tensors, the small values as JSON among them, and the CRC-32 of it all: a state is
read with one copy, and what was damaged on the disk is noticed. The last two rounds are kept, so that a device that was
killed goes on from a finished round, and one that is asked the same round twice answers from what it already did.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, TensorSpec, serialize
from safetensors.torch import load
from torch import Tensor

from client.states import States
from fedstill.learning import State
from fedstill.rounds import DeviceAnswer

CHECKSUM = 4  # bytes at a file's end
FACTS, PACKET, STUDENT, MORE = "facts", "packet", "student/", "more/"  # names and prefixes of tensors in a file

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """A device after a round.

    Attributes:
        round_number: from 1.
        student: its parameters and buffers.
        answer: what it said.
        more: what else a method keeps by name: tensors and JSON values.
    """

    round_number: int
    student: State
    answer: DeviceAnswer
    more: Mapping[str, Any] = field(default_factory=dict)


class Disk:
    """The states of a device with torch.

    Args:
        folder: where they lie.
        durable: whether a state is on the disk when `save` returns; else a power failure may damage it.
    """

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self._states = States(folder, ".state", durable=durable)

    def load(self, asked: int, read: Callable[[Stored], T]) -> T | None:
        """Return what `read` makes of the state of the asked round, or else of the newest before it that it can read.

        A file that is not what was written, or that `read` refuses with one of `UNREADABLE`, is passed over with a
        warning.
        """
        return self._states.load(asked, lambda path: read(unpacked(path.read_bytes())))

    def save(self, state: Stored) -> None:
        """Write a state, then drop all but this round's and the one before it."""
        self._states.save(state.round_number, packed(state))

    def path(self, round_number: int) -> Path:
        """Return the file of a round's state."""
        return self._states.path(round_number)


def packed(state: Stored) -> bytes:
    """Return the content of a state's file."""
    tensors = {name: value for name, value in state.more.items() if isinstance(value, Tensor)}
    facts = {
        "round": state.round_number,
        "metrics": dict(state.answer.metrics),
        "more": {name: value for name, value in state.more.items() if name not in tensors},
    }
    content = _block(
        {
            **{STUDENT + name: tensor for name, tensor in state.student.items()},
            **{MORE + name: tensor for name, tensor in tensors.items()},
            PACKET: _of_bytes(state.answer.packet),
            FACTS: _of_bytes(json.dumps(facts).encode()),
        }
    )
    return content + zlib.crc32(content).to_bytes(CHECKSUM, "little")


def unpacked(content: bytes) -> Stored:
    """Return the state that `packed` made this content of.

    Raises:
        ValueError: it is not what `packed` made.
        KeyError: something is missing.
    """
    block = memoryview(content)[:-CHECKSUM]
    if zlib.crc32(block).to_bytes(CHECKSUM, "little") != content[-CHECKSUM:]:
        raise ValueError("it is damaged, its checksum does not hold")
    try:
        tensors = load(bytes(block))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    facts = json.loads(tensors[FACTS].numpy().tobytes())
    answer = DeviceAnswer(tensors[PACKET].numpy().tobytes(), facts["metrics"])
    return Stored(facts["round"], _below(STUDENT, tensors), answer, {**_below(MORE, tensors), **facts["more"]})


def _block(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors in the safetensors format, without the search for shared memory of `safetensors.torch.save`.

    The library reads them where they lie in memory, so that they must live until it has: `whole` holds them.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return serialize(
        {
            name: TensorSpec(
                dtype=str(tensor.dtype).removeprefix("torch."),
                shape=tuple(tensor.shape),
                data_ptr=tensor.data_ptr(),
                data_len=tensor.nbytes,
            )
            for name, tensor in whole.items()
        }
    )


def _of_bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
