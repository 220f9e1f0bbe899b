from pathlib import Path

import pytest
import torch

from server.checkpoints import Checkpoints


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    for number in range(5):
        checkpoints.save(number, {"round": number, "teacher": {"w": torch.full((2,), float(number))}})
    newest = checkpoints.newest()
    assert newest is not None
    assert newest["round"] == 4
    assert newest["teacher"]["w"].tolist() == [4.0, 4.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-00003", "round-00004"]


def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"round": 1})

    def full_disk(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(2, {"round": 2})
    monkeypatch.undo()
    newest = checkpoints.newest()
    assert newest == {"round": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["round-00001"]


def test_a_half_written_checkpoint_of_a_killed_process_is_not_seen(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"round": 1})
    left = tmp_path / ".round-00002.99.tmp"
    left.mkdir()
    (left / "state.pt").write_bytes(b"half")
    assert checkpoints.newest() == {"round": 1}
