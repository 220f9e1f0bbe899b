"""The trial, in real processes: what answers wrongly, can't be loaded, or needs more than there is, is refused."""

from functools import partial
from pathlib import Path

import pytest

from client.updates import trial
from client.updates.rehearsal import rehearse
from client.updates.state import Installed, State
from client.updates.trial import Measured, measure, try_release
from client.updates.updater import Kind
from fedstill.device_classes import Budget
from fedstill.errors import ReleaseError
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE, Manifest, read_manifest
from protos.delivery_pb2 import OUTCOME_REFUSED
from server.release.keys import Keys
from tests.client.devices import FEW, Device, make_release, version_of


def manifest_of(folder: Path) -> Manifest:
    return read_manifest((folder / "manifest.json").read_bytes())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("wrong", "self-test: logits differ"), ("broken", "the runtime ended with code 1")],
)
def test_a_bad_model_never_runs(kind: str, reason: str, device: Device, keys: Keys, tmp_path: Path) -> None:
    device.updater().check()
    before = device.home.state().running
    bad = make_release(tmp_path / "bad", keys, kind)
    device.delivery.folder = bad
    result = device.updater(trial=try_release).check()
    assert result.kind is Kind.REFUSED
    assert reason in result.detail
    assert device.home.state().running == before
    assert device.delivery.outcomes()[-1] == (version_of(bad), OUTCOME_REFUSED)


def test_a_runtime_that_is_too_old_is_said(keys: Keys, tmp_path: Path) -> None:
    folder = make_release(tmp_path / "r", keys, minimum="99.1")
    with pytest.raises(ReleaseError, match=r"needs ONNX Runtime 99\.1 or newer, this device has"):
        try_release(folder, manifest_of(folder))


def test_a_release_without_a_self_test_of_its_own_file_is_refused(releases: tuple[Path, Path]) -> None:
    manifest = manifest_of(releases[0])
    others = {FLOAT_FILE: manifest.self_test.expected[FLOAT_FILE]}
    for change in ({"expected": others}, {"shape": (0, 1, 16, 16)}):
        without = manifest.model_copy(update={"self_test": manifest.self_test.model_copy(update=change)})
        with pytest.raises(ReleaseError, match="holds no self-test of it"):
            try_release(releases[0], without)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(flash_bytes=1000), "bytes, the class's budget is 1000"),
        (Budget(ram_bytes=10_000_000, ram="process"), "MB of memory, the class's budget is 10"),
    ],
)
def test_the_budget_of_the_class_holds_here(budget: Budget, reason: str, releases: tuple[Path, Path]) -> None:
    with pytest.raises(ReleaseError, match=reason):
        measure(releases[0], manifest_of(releases[0]), INT8_FILE, budget)


@pytest.mark.parametrize(
    ("int8", "float32", "chosen"),
    [(1.0, 0.89, FLOAT_FILE), (1.0, 0.91, INT8_FILE), (1.0, 3.0, INT8_FILE), (1.0, None, INT8_FILE)],
)
def test_the_float_file_runs_only_where_it_is_clearly_faster(
    int8: float,
    float32: float | None,
    chosen: str,
    releases: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(folder: Path, manifest: Manifest, name: str, budget: Budget) -> Measured:
        milliseconds = {INT8_FILE: int8, FLOAT_FILE: float32}[name]
        if milliseconds is None:
            raise ReleaseError("it fails its self-test")
        return Measured((milliseconds,), 1)

    monkeypatch.setattr(trial, "measure", measured)
    found = try_release(releases[0], manifest_of(releases[0]))
    assert found.file == chosen
    assert (f"{FLOAT_FILE} not chosen" in found.detail) == (float32 is None)


def switched(state: State, to: Installed) -> State:
    return state.switched(to)


def test_a_rehearsal_finds_another_class_and_a_student_that_dies(device: Device, keys: Keys, tmp_path: Path) -> None:
    for kind, reason in [("wrong", "prediction 1 is of another class"), ("broken", "InvalidProtobuf")]:
        folder = make_release(tmp_path / kind, keys, kind)
        version = version_of(folder)
        slot = device.home.slot(version)
        slot.parent.mkdir(parents=True, exist_ok=True)
        slot.symlink_to(folder)
        installed = Installed(version=version, file=INT8_FILE, sha256={})
        device.home.change(lambda before: before.model_copy(update={"watched": False}))
        device.home.change(partial(switched, to=installed))
        assert reason in rehearse(device.home, FEW)
