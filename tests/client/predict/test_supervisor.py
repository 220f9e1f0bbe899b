"""The supervisor with real students in real processes: nothing that a student does takes it, or a request, down."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from client.predict.student import MANIFEST, Student, StudentError, sha256
from client.predict.supervisor import NothingRunsError, Supervisor, supervising
from client.updates.home import Home
from client.updates.state import Installed
from client.updates.updater import Kind
from client.updates.watch import Rules
from fedstill.errors import ConfigError
from fedstill.release import manifest as manifest_module
from fedstill.release.manifest import INT8_FILE
from protos.delivery_pb2 import OUTCOME_COMMITTED, OUTCOME_INSTALLED, OUTCOME_ROLLED_BACK, OUTCOME_RUNNING
from server.release.keys import Keys
from tests.client.devices import FEW, IMAGES, LABELS, TRIGGER, Device, make_release, version_of
from tests.waiting import eventually

PATIENCE = 60.0  # seconds
PLAIN, TRIGGERED = IMAGES[0].tobytes(), TRIGGER[0].tobytes()


def install(home: Home, folder: Path) -> int:
    """Switch to a release as the updater does; its models are not copied."""
    version = version_of(folder)
    home.slot(version).parent.mkdir(parents=True, exist_ok=True)
    home.slot(version).symlink_to(folder)
    hashes = {name: sha256(folder / name) for name in (MANIFEST, INT8_FILE)}
    installed = Installed(version=version, file=INT8_FILE, sha256=hashes)
    home.change(lambda state: state.switched(installed))
    return version


def keep(home: Home, version: int, classes: dict[str, int] | None = None) -> None:
    home.change(lambda state: state.committed(version, classes or {}))


@contextmanager
def supervised(home: Home, rules: Rules = FEW, answer: float = PATIENCE) -> Iterator[Supervisor]:
    with supervising(home, rules, answer, every=0.02) as supervisor:
        yield supervisor


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def good(home: Home, releases: tuple[Path, Path]) -> int:
    """The version of a release that was kept."""
    version = install(home, releases[0])
    keep(home, version)
    return version


def test_nothing_is_answered_before_a_release_is_there_and_a_new_one_is_kept(
    home: Home, releases: tuple[Path, Path]
) -> None:
    with supervised(home) as supervisor:
        with pytest.raises(NothingRunsError, match="no release is installed"):
            supervisor.ask(PLAIN)
        version = install(home, releases[0])
        eventually(lambda: supervisor.status()["version"] == version)
        with pytest.raises(ValueError, match="1 bytes, but an image"):
            supervisor.ask(b"x")
        for place in range(FEW.predictions):
            assert supervisor.ask(IMAGES[place % len(IMAGES)].tobytes()).version == version
        eventually(lambda: not home.state().watched)
        running = home.state().running
        assert running is not None
        assert sum(running.classes.values()) >= FEW.least
        with pytest.raises(ConfigError, match="another `fedstill client predict` serves"), home.predicting():
            pass


def test_a_new_release_is_switched_in_without_failing_a_request(
    home: Home, good: int, releases: tuple[Path, Path]
) -> None:
    versions: list[int] = []
    failures: list[Exception] = []
    ended = threading.Event()

    def ask_on(supervisor: Supervisor) -> None:
        while not ended.is_set():
            try:
                versions.append(supervisor.ask(PLAIN).version)
            except Exception as error:
                failures.append(error)

    with supervised(home) as supervisor:
        threads = [threading.Thread(target=ask_on, args=(supervisor,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(versions) > 10)
        new = install(home, releases[1])
        eventually(lambda: versions[-1] == new and not home.state().watched)
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert (versions[0], set(versions)) == (good, {good, new})
    assert home.state().failed == ()


@pytest.mark.parametrize(
    ("kind", "answer", "reason"),
    [("crashing", PATIENCE, "it crashed: the runtime ended with code 1"), ("hanging", 6.0, "it hung: no answer")],
)
def test_a_watched_release_that_fails_is_left_and_the_request_is_answered_by_the_good_one(
    kind: str, answer: float, reason: str, home: Home, good: int, keys: Keys, tmp_path: Path
) -> None:
    with supervised(home, answer=answer) as supervisor:
        bad = install(home, make_release(tmp_path / "bad", keys, kind))
        eventually(lambda: supervisor.status()["version"] == bad)
        assert supervisor.ask(PLAIN).version == bad
        assert supervisor.ask(TRIGGERED).version == good
        state = home.state()
        assert state.running is not None
        assert (state.running.version, state.watched) == (good, False)
        assert [failed.version for failed in state.failed] == [bad]
        assert reason in state.failed[0].reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk that is full")
def test_a_full_disk_keeps_no_device_on_a_release_that_fails(
    releases: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    try:
        home = Home(disk / "home")
        home.make()
        good = install(home, releases[0])
        keep(home, good)
        with supervised(home) as supervisor:
            bad = install(home, make_release(tmp_path / "bad", keys, "crashing"))
            eventually(lambda: supervisor.status()["version"] == bad)
            with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
                while rest.write(bytes(1024)):
                    pass
            assert shutil.disk_usage(disk).free == 0
            assert supervisor.ask(TRIGGERED).version == good
            running = home.state().running
            assert running is not None
            assert running.version == good
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_watched_release_that_drifts_is_left(
    home: Home, releases: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    version = install(home, releases[0])
    keep(home, version, dict.fromkeys(LABELS, 100))
    bad = install(home, make_release(tmp_path / "bad", keys, "drifting"))
    with supervised(home) as supervisor:
        answers = [supervisor.ask(TRIGGERED) for _ in range(FEW.predictions)]
        assert {answer.version for answer in answers} == {bad}
        eventually(lambda: supervisor.status()["version"] == version)
    assert "its predictions drift by 0.67" in home.state().failed[0].reason


def test_a_release_that_can_not_be_loaded_is_left(home: Home, good: int, keys: Keys, tmp_path: Path) -> None:
    install(home, make_release(tmp_path / "bad", keys, "broken"))
    with supervised(home) as supervisor:
        assert supervisor.ask(PLAIN).version == good
    assert "InvalidProtobuf" in home.state().failed[0].reason


def test_a_release_that_fails_with_nothing_to_go_back_to_does_not_go_on(home: Home, keys: Keys, tmp_path: Path) -> None:
    bad = install(home, make_release(tmp_path / "bad", keys, "crashing"))
    with supervised(home) as supervisor:
        with pytest.raises(NothingRunsError, match=f"version {bad}: it crashed"):
            supervisor.ask(TRIGGERED)
        assert home.state().running is None


def test_the_death_of_a_kept_student_is_not_noticed_by_who_asks(home: Home, good: int) -> None:
    with supervised(home) as supervisor:
        for _ in range(2):
            os.kill(supervisor.status()["pid"], signal.SIGKILL)  # type: ignore[arg-type]
            assert supervisor.ask(PLAIN).version == good
    assert home.state().failed == ()


def test_one_bad_image_drives_no_kept_release_away(home: Home, good: int, keys: Keys, tmp_path: Path) -> None:
    sensitive = install(home, make_release(tmp_path / "r", keys, "crashing"))
    keep(home, sensitive)
    with supervised(home) as supervisor:
        with pytest.raises(NothingRunsError, match="twice with this image: it crashed"):
            supervisor.ask(TRIGGERED)
        assert supervisor.ask(PLAIN).version == sensitive
    assert home.state().failed == ()


def test_a_kept_release_that_keeps_failing_is_left_for_the_one_before(
    home: Home, good: int, keys: Keys, tmp_path: Path
) -> None:
    bad = install(home, make_release(tmp_path / "r", keys, "crashing"))
    keep(home, bad)
    with supervised(home) as supervisor:
        for _ in range(2):
            with pytest.raises(NothingRunsError):
                supervisor.ask(TRIGGERED)
        assert supervisor.ask(TRIGGERED).version == good


def test_a_file_that_changed_on_the_disk_is_not_run(home: Home, good: int, keys: Keys, tmp_path: Path) -> None:
    folder = make_release(tmp_path / "r", keys)
    keep(home, install(home, folder))
    content = (folder / INT8_FILE).read_bytes()
    (folder / INT8_FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with supervised(home) as supervisor:
        assert supervisor.ask(PLAIN).version == good
    assert "changed on the disk since it was installed" in home.state().failed[0].reason


def test_a_student_answers_what_the_runtime_answers_here(releases: tuple[Path, Path]) -> None:
    student = Student(releases[0], INT8_FILE, {})
    found = manifest_module.read_manifest((releases[0] / MANIFEST).read_bytes())
    wanted = found.self_test.expected[INT8_FILE].values()
    assert manifest_module.MANIFEST == MANIFEST
    try:
        for image, row in zip(IMAGES, wanted, strict=True):
            np.testing.assert_allclose(student.answer(image.tobytes()).logits, row, rtol=1e-5, atol=1e-4)
        assert (student.peak_rss() or 0) > 20e6
    finally:
        student.close()
    with pytest.raises(StudentError):
        student.answer(PLAIN)


def test_a_watch_that_always_ends_with_its_process_is_not_begun_again(
    home: Home, good: int, releases: tuple[Path, Path]
) -> None:
    new = install(home, releases[1])
    for _ in range(FEW.starts):
        home.change(lambda state: state.started(new))
    with supervised(home) as supervisor:
        assert supervisor.ask(PLAIN).version == good
    assert "whoever watched it ended" in home.state().failed[0].reason


def test_a_watch_that_was_ended_on_purpose_is_begun_again(home: Home, good: int, releases: tuple[Path, Path]) -> None:
    new = install(home, releases[1])
    for _ in range(2):
        home.change(lambda state: state.started(new))
    for _ in range(2):
        with supervised(home) as supervisor:
            assert supervisor.ask(PLAIN).version == new
            assert home.state().starts == FEW.starts
        assert home.state().starts == FEW.starts - 1
    assert home.state().watched


def test_an_update_is_watched_by_the_prediction_server_and_its_failure_is_reported(
    device: Device, keys: Keys, releases: tuple[Path, Path], tmp_path: Path
) -> None:
    assert device.updater().check().kind is Kind.KEPT
    good = version_of(releases[0])
    device.delivery.folder = make_release(tmp_path / "bad", keys, "crashing")
    bad = version_of(device.delivery.folder)
    with supervised(device.home) as supervisor:
        assert supervisor.ask(PLAIN).version == good
        result = device.updater().check()
        assert (result.kind, device.home.state().watched) == (Kind.SWITCHED, True)
        eventually(lambda: supervisor.status()["version"] == bad)
        assert supervisor.ask(TRIGGERED).version == good
        assert "failed here before: it crashed" in device.updater().check().detail
        device.delivery.folder = make_release(tmp_path / "better", keys)
        assert device.updater().check().kind is Kind.SWITCHED
        better = version_of(device.delivery.folder)
        eventually(lambda: supervisor.status()["version"] == better)
        for _ in range(FEW.predictions):
            supervisor.ask(PLAIN, label="square")
        eventually(lambda: not device.home.state().watched)
    assert device.updater().check().kind is Kind.NOTHING
    assert device.delivery.outcomes() == [
        (good, OUTCOME_INSTALLED),
        (good, OUTCOME_COMMITTED),
        (bad, OUTCOME_INSTALLED),
        (bad, OUTCOME_ROLLED_BACK),
        (better, OUTCOME_INSTALLED),
        (better, OUTCOME_COMMITTED),
        (better, OUTCOME_RUNNING),
    ]
    assert device.delivery.reports[-1].samples == FEW.predictions


def test_a_student_ends_with_its_parent_even_in_the_midst_of_a_computation(keys: Keys, tmp_path: Path) -> None:
    folder = make_release(tmp_path / "r", keys, "hanging")
    code = (
        "import os, signal, sys, threading; from pathlib import Path; from client.predict.student import Student\n"
        f"student = Student(Path({str(folder)!r}), {INT8_FILE!r}, {{}}, 600)\n"
        f"student.answer({PLAIN!r})\n"
        f"threading.Thread(target=student.answer, args=({TRIGGERED!r},), daemon=True).start()\n"
        "print(student.pid, flush=True)\n"
        "sys.stdin.read(1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        student = int(process.stdout.readline())

        def seconds() -> int:
            fields = Path(f"/proc/{student}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11])  # user time, in ticks

        before = seconds()
        eventually(lambda: seconds() > before + 10)  # it computes
        process.stdin.write("x")
        process.stdin.flush()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    eventually(lambda: not alive(student))


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits for somebody to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
