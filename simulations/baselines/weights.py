"""Weights as packets, and their mean: what FedAvg and FedDF exchange."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedstill.errors import PacketError
from fedstill.learning import State
from fedstill.packet import CONTRACT_VERSION
from protos import baselines_pb2 as pb
from simulations.baselines.heads import parsed

HEADERS = 64  # bytes that no honest packet's fields beside the values reach
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class Weights:
    """A model on the wire.

    Attributes:
        state: parameters and buffers.
        samples: n_k, samples that it was trained on; 0: it comes from the server.
        round_number: from 1.
        rounds: rounds of the whole run.
    """

    state: State
    samples: int
    round_number: int
    rounds: int


def encode(seed: int, weights: Weights) -> bytes:
    """Return the serialized packet of a model: float32 values alone, names and shapes follow from the architecture.

    Integer buffers, which only count a BatchNorm's batches, don't travel; its running statistics do.
    """
    values = [
        tensor.numpy().astype(_FLOAT32).ravel() for tensor in weights.state.values() if tensor.is_floating_point()
    ]
    packet = pb.Weights(
        version=CONTRACT_VERSION,
        run=seed,
        round=weights.round_number,
        rounds=weights.rounds,
        samples=weights.samples,
        values=np.concatenate(values).tobytes(),
    )
    return packet.SerializeToString(deterministic=True)


def decode(seed: int, like: State, content: bytes, round_number: int | None = None) -> Weights:
    """Parse and check a serialized model.

    Args:
        seed: run seed.
        like: a state of the architecture that it must be of; gives names, shapes and integer buffers.
        content: untrusted bytes.
        round_number: the round that it must belong to; None: any.

    Raises:
        PacketError: it does not parse, is of another contract, run, round or size, or has values that are not finite.
    """
    expected = _FLOAT32.itemsize * values_of(like)
    packet = parsed(pb.Weights(), seed, content, expected + HEADERS, round_number, what="weights")
    if len(packet.values) != expected:
        raise PacketError(f"weights have {len(packet.values)} bytes, {expected} expected")
    values = np.frombuffer(packet.values, dtype=_FLOAT32).astype(np.float32)
    if not np.isfinite(values).all():
        raise PacketError("weights are not finite")
    return Weights(_filled(like, values), packet.samples, packet.round, packet.rounds)


def values_of(state: State) -> int:
    """Return how many values of a state travel."""
    return sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())


def average(models: Sequence[Weights]) -> State:
    """Return sum_k n_k / n * w_k, BatchNorm's running statistics included (they are part of w).

    The sum is in float64, so that models that are equal average to themselves, bit for bit.

    Args:
        models: w_k with their samples n_k, at least one, all of one architecture.
    """
    total = sum(model.samples for model in models)
    result: State = {}
    for name, first in models[0].state.items():
        if first.is_floating_point():
            mean = sum(model.samples / total * model.state[name].double() for model in models)
            assert isinstance(mean, torch.Tensor)
            result[name] = mean.to(first.dtype)
        else:
            result[name] = first.clone()
    return result


def _filled(like: State, values: np.ndarray) -> State:
    """Return a state of `like`'s names and shapes with these floating-point values."""
    state: State = {}
    start = 0
    for name, tensor in like.items():
        if tensor.is_floating_point():
            part = values[start : start + tensor.numel()]
            state[name] = torch.from_numpy(part.reshape(tuple(tensor.shape)).copy())
            start += tensor.numel()
        else:
            state[name] = tensor.clone()
    return state
