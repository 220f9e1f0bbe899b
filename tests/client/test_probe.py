from dataclasses import replace
from pathlib import Path

import pytest

from client.probe import Machine, look, misfit, obstacles, propose, providers, telling, troubles

A72 = frozenset(["fp", "asimd", "evtstrm", "crc32", "cpuid"])
A76 = A72 | {"asimddp"}
GOOD = {"flwr": "1.41.0", "onnxruntime": "1.31.1", "torch": "2.9.1"}
PI4 = Machine("Raspberry Pi 4 Model B Rev 1.4", "aarch64", 4, A72, 3791, GOOD, providers=("CPUExecutionProvider",))


@pytest.mark.parametrize(
    ("machine", "device_class", "reason"),
    [
        (PI4, "pi4", "no asimddp"),
        (replace(PI4, features=A76), "pi5", "dot products"),
        (replace(PI4, memory_mb=419), "zero2w", "419 MB"),
        (replace(PI4, model="NVIDIA Jetson Orin Nano", features=A76), "jetson", "Jetson"),
        (replace(PI4, architecture="x86_64", features=frozenset()), "pi5", "3791 MB"),
        (replace(PI4, architecture="armv7l", bits=32), "", "64-bit system"),
        (replace(PI4, bits=32), "", "aarch64 with a system of 32 bits"),
    ],
)
def test_a_machine_gets_the_class_that_fits_it_and_the_reason(machine: Machine, device_class: str, reason: str) -> None:
    proposal = propose(machine)
    assert proposal.device_class == device_class
    assert reason in proposal.reason


@pytest.mark.parametrize(
    ("torch", "features", "word"),
    [
        ("2.9.1", A72, ""),
        ("2.8.0+cpu", A72, ""),
        ("2.10.0", A76, ""),
        ("2.10.0", A72, "illegal instruction"),
        ("2.11.0", A72, "CUDA build"),
        ("2.13.0", A76, "CUDA build"),
        ("2.13.0+cpu", A76, ""),
        ("", A76, "not installed"),
    ],
)
def test_a_torch_that_can_not_work_on_arm_is_told(torch: str, features: frozenset[str], word: str) -> None:
    packages = {**GOOD, "torch": torch} if torch else {name: GOOD[name] for name in ("flwr", "onnxruntime")}
    found = troubles(replace(PI4, features=features, packages=packages))
    assert len(found) == bool(word)
    assert all(word in trouble for trouble in found)


def test_a_system_of_32_bits_can_not_run_a_device_and_a_board_without_torch_can() -> None:
    without = {name: GOOD[name] for name in ("flwr", "onnxruntime")}
    assert obstacles(replace(PI4, packages=without)) == []
    assert ["install one of 64" in word for word in obstacles(replace(PI4, bits=32))] == [True]


def test_a_runtime_that_can_not_be_imported_is_told() -> None:
    assert ["can't be imported" in word for word in troubles(replace(PI4, providers=()))] == [True]


def test_a_machine_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi Zero 2 W Rev 1.0\0")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:         428968 kB\nMemFree: 1 kB\n")
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    found = look(tmp_path)
    assert found.system == "Debian GNU/Linux 12 (bookworm)"
    assert (found.model, found.memory_mb) == ("Raspberry Pi Zero 2 W Rev 1.0", 418)
    assert found.features == {"fp", "asimd"}


@pytest.mark.parametrize(
    ("machine", "device_class", "weaker"),
    [
        (PI4, "pi5", "looks like class pi4, weaker than pi5: 64-bit cores without int8"),
        (replace(PI4, memory_mb=419), "pi4", "looks like class zero2w, weaker than pi4: 419 MB"),
        (PI4, "pi4", ""),
        (PI4, "zero2w", ""),
        (PI4, "camera", ""),
        (replace(PI4, architecture="x86_64"), "jetson", ""),
        (replace(PI4, bits=32), "pi4", ""),
    ],
)
def test_a_machine_weaker_than_the_class_that_it_is_to_be_is_told(
    machine: Machine, device_class: str, weaker: str
) -> None:
    said = misfit(machine, device_class)
    assert weaker in said
    assert bool(weaker) == bool(said)


def test_the_features_that_decide_the_speed_are_told_and_no_others() -> None:
    assert telling(replace(PI4, features=A76 | {"i8mm"})) == ("asimddp", "i8mm")
    assert telling(PI4) == ()


@pytest.mark.parametrize(
    ("kernel", "program", "is_so"),
    [
        ("x86_64\n", "aarch64", True),
        ("aarch64\n", "aarch64", False),
        ("x86_64\n", "i686", False),
        (None, "aarch64", False),
    ],
)
def test_an_emulated_processor_is_noticed_by_what_the_kernel_is_for(
    kernel: str | None, program: str, is_so: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: program)
    if kernel is not None:
        (tmp_path / "proc" / "sys" / "kernel").mkdir(parents=True)
        (tmp_path / "proc" / "sys" / "kernel" / "arch").write_text(kernel)
    assert look(tmp_path).emulated is is_so


def test_this_machine_has_a_class() -> None:
    assert look().memory_mb > 0
    assert not look().emulated
    assert "CPUExecutionProvider" in providers()
    assert propose(look()).device_class
