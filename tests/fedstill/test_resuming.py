from pathlib import Path

import pytest

from fedstill import resuming
from fedstill.resuming import hint, resumable


@pytest.fixture(autouse=True)
def _nothing_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_goes_on", None)


def test_nothing_is_hinted_at_before_there_is_something_to_go_on_with(tmp_path: Path) -> None:
    assert hint() == ""
    resumable("simulate", tmp_path / "config.toml")
    assert hint() == ""


def test_the_hint_is_a_command_for_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "my run"
    out.mkdir()
    (out / "config.toml").touch()
    resumable("simulate", out / "config.toml")
    assert hint() == f"; continue with: fedstill simulate --resume --out '{out}'"
    resumable("simulate", out / "config.toml", ["--keys", "my keys"], then="fedstill compress mcu")
    assert hint().endswith(f"--out '{out}' --keys 'my keys', then: fedstill compress mcu")
