"""A state file gives back what was saved, to the bit, or counts as not there."""

from pathlib import Path

import pytest
import torch

from client.disk import Disk, Stored, packed, unpacked
from fedstill.rounds import DeviceAnswer


def state(round_number: int = 3) -> Stored:
    rng = torch.Generator().manual_seed(round_number)
    student = {
        "0.weight": torch.randn(4, 3, 2, 2, generator=rng).to(memory_format=torch.channels_last),
        "1.num_batches_tracked": torch.tensor(7),
        "2.weight": torch.randn(3, 4, generator=rng).to(torch.bfloat16),
    }
    more = {"known": torch.tensor([True, False]), "codes": torch.zeros(0, 3, dtype=torch.uint8), "version": 5}
    return Stored(round_number, student, DeviceAnswer(b"said", {"accuracy": 0.1 + 0.2, "steps": 3.0}), more)


def same(one: Stored, other: Stored) -> bool:
    def tensors(found: Stored) -> dict[str, torch.Tensor]:
        return {**found.student, **{key: value for key, value in found.more.items() if isinstance(value, torch.Tensor)}}

    left, right = tensors(one), tensors(other)
    return (
        left.keys() == right.keys()
        and all(left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left)
        and (one.round_number, one.answer, one.more["version"])
        == (other.round_number, other.answer, other.more["version"])
    )


def test_a_state_comes_back_to_the_bit() -> None:
    assert same(unpacked(packed(state())), state())
    nothing = Stored(1, {}, DeviceAnswer(b"", {}))
    assert unpacked(packed(nothing)) == nothing


def test_what_comes_back_may_be_learned_on() -> None:
    student = unpacked(packed(state())).student
    for tensor in student.values():
        tensor.add_(1)
    assert student["1.num_batches_tracked"] == 8


def test_any_damage_is_noticed(tmp_path: Path) -> None:
    content = packed(state())
    disk = Disk(tmp_path)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        disk.path(3).write_bytes(damaged)
        assert disk.load(3, lambda found: found) is None
    for length in range(0, len(content), 7):
        disk.path(3).write_bytes(content[:length])
        assert disk.load(3, lambda found: found) is None


def test_a_state_that_cant_be_read_or_used_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path)
    disk.save(state(2))
    disk.save(state(3))

    def of_round_2(found: Stored) -> Stored:
        if found.round_number != 2:
            raise ValueError("of another run")
        return found

    found = disk.load(9, of_round_2)
    assert found is not None
    assert same(found, state(2))
    assert "round-00003.state can't be read and is passed over: of another run" in caplog.text


def test_the_round_asked_about_and_the_one_before_it_are_kept(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "device")
    assert disk.load(1, lambda found: found) is None
    for round_number in (1, 2, 3, 4):
        disk.save(state(round_number))
    (tmp_path / "device" / ".round-00005.state.77.tmp").write_bytes(b"of a process that was killed")
    disk.save(state(2))  # of a server that goes on from an older round
    assert sorted(path.name for path in (tmp_path / "device").iterdir()) == ["round-00002.state"]
    disk.save(state(3))
    found = disk.load(2, lambda found: found)
    assert found is not None
    assert found.round_number == 2
