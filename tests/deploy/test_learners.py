"""Learners of all kinds as real devices in one federation; what a 512 MB board would have in memory is measured."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fedstill.release.parcel import parcel_name
from fedstill.release.verify import digest
from tests.deploy.deployment import PATIENCE, SCENARIO, Deployment, command, eventually, fedstill, rows
from tests.resident import resident

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
BOARD_MB = 380
"""Some 420 are left on a 512 MB board beside its system."""
SCENARIO_OF_ALL = (
    SCENARIO.replace("two-classes", "all-learners")
    .replace("rounds = 3", "rounds = 2")
    .replace(
        'pi5 = { student = "tiny-conv-s" }',
        'pi5 = { student = "tiny-conv-s" }\npi4 = { student = "tiny-conv-s", learner = "observer" }',
    )
    .replace('student = "tiny-separable-s" }', 'student = "tiny-conv-s", learner = "head" }')
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    found = Deployment(tmp_path_factory.mktemp("l"), scenario=SCENARIO_OF_ALL, copied=False)
    try:
        found.up()
        yield found
    finally:
        found.down()


class Watch:
    """The processes of a device while a run goes on.

    A small student is taught faster than anybody could look. So the agent is held while there is no app: the next one
    waits for its answer until it has been seen.
    """

    def __init__(self, home: Path) -> None:
        lock = home / "run" / "client.lock"
        # Read only: whoever looks whether it is held takes it for a moment, and then the device can't.
        eventually(lambda: lock.exists() and lock.read_text() != "", "the device's processes")
        self._supervisor = psutil.Process(int(lock.read_text()))
        eventually(lambda: len(self._processes()) == 4, "supervisor, agent, SuperNode and SuperExec")
        (self.agent,) = (process for process in self._processes() if "client.agent" in process.cmdline())
        (self._executor,) = (process for process in self._processes() if "client.apps" in process.cmdline())
        self._looked = 0.0
        self.peak_mb = 0.0
        self.each = ""
        self.apps = 0
        self.torch = False

    def _processes(self) -> list[psutil.Process]:
        return [self._supervisor, *self._supervisor.children(recursive=True)]

    def look(self) -> None:
        """Look what they hold: at once while there is an app, which waits meanwhile, else a few times a second."""
        processes = self._processes()
        apps = self._executor.children()  # and not theirs: to know its platform, an app may ask the program `file`
        if not apps:
            self.agent.suspend()
            if time.monotonic() < self._looked + 0.3:
                return
        self._looked = time.monotonic()
        try:
            for app in apps:
                app.suspend()
            self.apps = max(self.apps, len(apps))
            held = resident(*(process.pid for process in processes)) / 2**20
            self.torch |= any("libtorch" in Path(f"/proc/{process.pid}/maps").read_text() for process in processes)
            each = "\n".join(
                f"{process.memory_info().rss / 2**20:.0f} MB  {' '.join(process.cmdline())}" for process in processes
            )
        except (psutil.Error, OSError):  # one ended meanwhile
            return
        finally:
            for app in apps:
                with suppress(psutil.Error):
                    app.resume()
            if apps:
                self.agent.resume()
        if held > self.peak_mb:
            self.peak_mb, self.each = held, each


def test_all_learners_are_one_federation_and_a_small_board_bears_it(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "run"
    classes = deployment.scenario.classes_of_devices()
    boards = {name: Watch(deployment.device(classes.index(name))) for name in ("zero2w", "pi4", "pi5")}
    run = command("server", "run", str(deployment.file), "--home", str(deployment.server), "--out", str(out))
    eventually(deployment.whole, "a whole fleet")
    with (tmp_path / "told").open("wb") as told:
        running = psutil.Popen(run, stdout=told, stderr=subprocess.STDOUT)
        while running.poll() is None:
            for watch in boards.values():
                watch.look()
    for watch in boards.values():
        watch.agent.resume()
    assert running.wait(PATIENCE) == 0, (tmp_path / "told").read_text()
    for name, watch in boards.items():
        print(f"{name}: {watch.peak_mb:.0f} MB in all its processes, {'with' if watch.torch else 'without'} torch")
        print(watch.each)

    fedstill("simulate", str(deployment.file), "--out", str(tmp_path / "simulated"), "--workers", "1")
    assert rows(out) == rows(tmp_path / "simulated")
    assert [(row["trained"], row["observed"], row["refused"]) for row in rows(out)] == [(2, 1, {})] * 2
    found = json.loads((out / "summary.json").read_text())["device_classes"]
    assert {name: facts["learner"] for name, facts in found.items()} == {
        "pi5": "torch",
        "pi4": "observer",
        "zero2w": "head",
    }
    for name in ("zero2w", "pi4"):
        assert boards[name].apps == 1  # seen in the midst of an answer; there is no room for two
        assert not boards[name].torch
        assert boards[name].peak_mb < BOARD_MB
    assert boards["pi5"].torch  # the look at maps finds it where it is

    # Each has what it needs, as signed downloads, and nothing else.
    for number, name in enumerate(classes):
        wanted = {parcel_name("proxy", digest(out / "assets" / "proxy-images.npy")[1])}
        if name != "pi5":
            wanted.add(parcel_name("backbone", digest(out / "assets" / f"backbone-{name}.onnx")[1]))
        assert {path.name for path in (deployment.device(number) / "parcels").iterdir()} == wanted


def test_a_device_that_waits_writes_nothing(deployment: Deployment) -> None:
    """What wears out an SD card is what goes on day and night."""
    eventually(deployment.whole, "a whole fleet")

    def files() -> dict[str, tuple[int, int]]:
        found = {}
        for number in range(3):
            for path in deployment.device(number).rglob("*"):
                found[str(path)] = (path.lstat().st_mtime_ns, path.lstat().st_size)
        return found

    time.sleep(5)  # what a run before leaves to do
    before = files()
    time.sleep(15)
    assert files() == before
