from pathlib import Path

import pytest

from deploy.lab import emulation
from deploy.lab.boards import BOARDS
from deploy.lab.emulation import CORES, OF_CLASS, cpuinfo, options
from fedstill.errors import ConfigError


def test_an_image_of_this_machine_needs_nothing_more(tmp_path: Path) -> None:
    assert options("image", "amd64", "x86_64", "pi4", tmp_path) == {}
    assert options("image", "arm64", "aarch64", "pi4", tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_every_board_has_a_core_that_can_be_emulated() -> None:
    assert set(OF_CLASS) == set(BOARDS)
    assert set(OF_CLASS.values()) <= set(CORES)


def test_an_image_for_arm64_sees_the_core_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "BINFMT", tmp_path)
    found = options("image", "arm64", "x86_64", "zero2w", tmp_path / "lab")
    assert found["environment"] == {"QEMU_CPU": "cortex-a53"}
    ((path, mount),) = found["volumes"].items()
    assert mount == {"bind": "/proc/cpuinfo", "mode": "ro"}
    assert Path(path).read_text() == cpuinfo("cortex-a53")


@pytest.mark.parametrize(
    ("architecture", "hint"), [("arm64", "qemu-user-static"), ("riscv64", "is for riscv64, this machine is x86_64")]
)
def test_an_image_that_nothing_here_runs_is_refused_in_one_line(
    architecture: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "BINFMT", tmp_path / "nothing")
    with pytest.raises(ConfigError, match=hint) as told:
        options("image", architecture, "x86_64", "pi4", tmp_path)
    assert "\n" not in str(told.value)
