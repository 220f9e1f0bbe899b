from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedstill.errors import PacketError
from fedstill.learning import State, build, state_of
from fedstill.models import architecture
from fedstill.tasks import load_task
from protos import baselines_pb2 as pb
from simulations.baselines.weights import Weights, average, decode, encode, values_of


def state(seed: int) -> State:
    """A state with a parameter, running statistics and an integer buffer."""
    rng = torch.Generator().manual_seed(seed)
    return OrderedDict(
        weight=torch.randn(3, 4, generator=rng),
        running_mean=torch.randn(5, generator=rng),
        num_batches_tracked=torch.tensor(seed),
    )


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def packed(seed: int = 1, samples: int = 7) -> bytes:
    return encode(9, Weights(state(seed), samples, 2, 5))


def test_a_model_survives_the_wire_but_for_its_integer_buffers() -> None:
    found = decode(9, state(2), packed(seed=1), round_number=2)
    assert (found.samples, found.round_number, found.rounds) == (7, 2, 5)
    assert equal(found.state, {**state(1), "num_batches_tracked": torch.tensor(2)})


@pytest.mark.parametrize("student", ["tiny-conv-s", "tiny-separable-s", "strided-conv-m"])
def test_the_packet_is_four_bytes_a_value_and_a_short_header(student: str) -> None:
    own = state_of(build(architecture(student), load_task("simulations.sources:MNIST"), seed=0))
    content = encode(2**32 - 1, Weights(own, 60_000, 99_999, 100_000))
    assert 0 < len(content) - 4 * values_of(own) < 40
    assert equal(decode(2**32 - 1, own, content).state, own)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.integers(0, 100))
def test_the_average_of_equal_models_is_that_model_bit_for_bit(samples: list[int], seed: int) -> None:
    assert equal(average([Weights(state(seed), count, 1, 1) for count in samples]), state(seed))


def test_the_average_weighs_parameters_and_running_statistics_by_samples() -> None:
    found = average([Weights(state(1), 30, 1, 1), Weights(state(2), 10, 1, 1)])
    for name in ("weight", "running_mean"):
        expected = (30 * state(1)[name].double() + 10 * state(2)[name].double()) / 40
        np.testing.assert_allclose(found[name].numpy(), expected.numpy(), rtol=1e-6)
    assert found["weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 99}, "contract version 99"),
        ({"run": 8}, "another run"),
        ({"round": 3}, "weights of round 3, 2 expected"),
        ({"rounds": 1}, "round 2 of 1"),
        ({"values": b"\0" * 64}, "weights have 64 bytes, 68 expected"),
        ({"values": np.full(17, np.inf, "<f4").tobytes()}, "not finite"),
        ({"values": np.full(17, np.nan, "<f4").tobytes()}, "not finite"),
        ({"values": b"\0" * 4000}, "over the limit"),
    ],
)
def test_weights_that_break_a_rule_are_refused(change: dict[str, int | bytes], reason: str) -> None:
    packet = pb.Weights.FromString(packed())
    for name, value in change.items():
        setattr(packet, name, value)
    with pytest.raises(PacketError, match=reason):
        decode(9, state(2), packet.SerializeToString(), round_number=2)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(PacketError):
        decode(9, state(2), content, round_number=2)
