import os
from pathlib import Path

import pytest

from fedstill.files import drop_unfinished, write_atomic, write_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "state"
    write_atomic(target, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new and longer")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "checkpoint", half)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        write_folder(tmp_path / "shelf", lambda folder, text=text: (folder / "a").write_text(text))  # type: ignore[misc]
    assert (tmp_path / "shelf" / "a").read_text() == "first"


def test_json_refuses_what_other_parsers_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "state", b"whole")
    (tmp_path / ".state.99.tmp").write_bytes(b"half")
    (tmp_path / ".round-00002.99.tmp").mkdir()
    (tmp_path / ".round-00002.99.tmp" / "state.pt").write_bytes(b"half")
    drop_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
