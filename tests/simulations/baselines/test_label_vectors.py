import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.errors import PacketError
from protos import baselines_pb2 as pb
from simulations.baselines.label_vectors import LabelSums, LabelVectors, by_label, decode, encode

CLASSES = 4


def vectors(seed: int, present: list[bool] | None = None) -> LabelVectors:
    held = np.array([True] * CLASSES if present is None else present)
    rows = np.random.default_rng(seed).dirichlet(np.ones(CLASSES), CLASSES).astype(np.float32)
    return LabelVectors(np.where(held[:, None], rows, 0).astype(np.float32), held)


@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES))
def test_vectors_survive_the_wire(seed: int, present: list[bool]) -> None:
    labels = vectors(seed, present)
    found = decode(9, CLASSES, encode(9, labels, 2, 5), round_number=2)
    np.testing.assert_array_equal(found.labels.vectors, labels.vectors)
    np.testing.assert_array_equal(found.labels.present, labels.present)
    assert (found.round_number, found.rounds) == (2, 5)


def test_a_devices_vector_is_the_mean_softmax_of_its_samples_of_a_label() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 5).astype(np.float32)
    found = by_label(rows, np.array([0, 2, 0, 2, 2]), CLASSES)
    np.testing.assert_allclose(found.vectors[0], rows[[0, 2]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.vectors[2], rows[[1, 3, 4]].mean(axis=0), rtol=1e-6)
    assert found.present.tolist() == [True, False, True, False]
    assert not found.vectors[[1, 3]].any()


def test_a_device_gets_the_mean_of_the_others_and_never_its_own() -> None:
    answers = {device: vectors(device) for device in range(5)}
    sums = LabelSums.of(answers.values(), CLASSES)
    for device, own in answers.items():
        others = [answers[other].vectors for other in answers if other != device]
        np.testing.assert_allclose(sums.without(own).vectors, np.mean(others, axis=0), atol=1e-6)


def test_devices_without_a_label_have_no_say_about_it() -> None:
    answers = [vectors(0), vectors(1, [False, True, True, True]), vectors(2)]
    found = LabelSums.of(answers, CLASSES).without(answers[0])
    np.testing.assert_allclose(found.vectors[0], answers[2].vectors[0], atol=1e-6)
    expected = (answers[1].vectors[1] + answers[2].vectors[1]) / 2
    np.testing.assert_allclose(found.vectors[1], expected, atol=1e-6)


def test_a_label_that_nobody_else_holds_has_no_vector() -> None:
    answers = [vectors(0, [True, True, False, False]), vectors(1, [False, True, True, False])]
    found = LabelSums.of(answers, CLASSES).without(answers[0])
    assert found.present.tolist() == [False, True, True, False]
    assert not found.vectors[~found.present].any()


def test_a_device_that_did_not_answer_gets_the_mean_of_all() -> None:
    answers = [vectors(0), vectors(1)]
    found = LabelSums.of(answers, CLASSES).without(None)
    np.testing.assert_allclose(found.vectors, (answers[0].vectors + answers[1].vectors) / 2, atol=1e-6)


@given(st.lists(st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES), min_size=1, max_size=5))
def test_what_goes_down_passes_the_checks_of_the_wire(held: list[list[bool]]) -> None:
    answers = [vectors(seed, present) for seed, present in enumerate(held)]
    sums = LabelSums.of(answers, CLASSES)
    for own in answers:
        decode(9, CLASSES, encode(9, sums.without(own), 1, 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 99}, "contract version 99"),
        ({"run": 8}, "another run"),
        ({"round": 3}, "of round 3, 2 expected"),
        ({"rounds": 1}, "round 2 of 1"),
        ({"classes": 5}, "5 classes, 4 expected"),
        ({"present": b""}, "4 expected"),
        ({"present": b"\xff"}, "beyond the last one"),
        ({"present": b"\x80"}, "have 64 bytes, 16 expected"),
        ({"vectors": np.full(16, np.nan, "<f4").tobytes()}, "no distribution"),
        ({"vectors": np.full(16, 0.5, "<f4").tobytes()}, "no distribution"),
        ({"vectors": np.tile([-1, 1, 1, 0], 4).astype("<f4").tobytes()}, "no distribution"),
        ({"vectors": b"\0" * 1000}, "over the limit"),
    ],
)
def test_vectors_that_break_a_rule_are_refused(change: dict[str, int | bytes], reason: str) -> None:
    packet = pb.LabelVectors.FromString(encode(9, vectors(0), 2, 5))
    for name, value in change.items():
        setattr(packet, name, value)
    with pytest.raises(PacketError, match=reason):
        decode(9, CLASSES, packet.SerializeToString(), round_number=2)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(PacketError):
        decode(9, CLASSES, content, round_number=2)
