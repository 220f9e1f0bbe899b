"""Real arm64 instructions, on emulated cores of the boards: install, answers, and a whole round. Not speed."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.lab.emulation import CORES
from deploy.lab.engine import Engine, connect
from fedstill.errors import ConfigError
from fedstill.release.manifest import INT8_FILE, MANIFEST
from fedstill.release.model import normalized, one_by_one, session
from fedstill.tasks import load_task
from server.release.export import normalization
from server.release.quantize import all_integer
from tests.deploy.arm import Board, root_file_system
from tests.deploy.deployment import PATIENCE, SCENARIO, Deployment, command, eventually, fedstill, rows

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(3600)]
SLOW = 10 * PATIENCE
"""Seconds for anything on an emulated board."""
IMAGES = 100
IMAGE = "fedstill/client:arm64"
HEADS = [part for name in ("pi4", "pi5") for part in ("--set", f"device_classes.{name}.learner=head")]
ONE_ROUND = (
    SCENARIO.replace("two-classes", "one-round")
    .replace("rounds = 3", "rounds = 1")
    .replace("per_round = 60", "per_round = 60\nquorum = 1")
    .replace('student = "tiny-separable-s" }', 'student = "tiny-conv-s", learner = "head" }')
)
IMPORT = """
import json, platform, sys
import cryptography, flwr.clientapp, grpc, numpy, onnxruntime, securesystemslib, tuf
import client.agent.__main__, client.app, client.commands, client.light.device, client.shim, client.updates.commands
from client.probe import look, propose
machine = look()
print(json.dumps({
    "machine": platform.machine(), "modules": sorted(sys.modules), "place": client.__file__,
    "class": propose(machine).device_class, "packages": machine.packages, "emulated": machine.emulated,
}))
"""
ANSWER = """
import sys
from pathlib import Path
import numpy as np
from fedstill.release.manifest import INT8_FILE, MANIFEST, Normalization, read_manifest
from fedstill.release.model import normalized, one_by_one, session
from fedstill.release.selftest import self_test
folder, answers = map(Path, sys.argv[1:3])
inputs = normalized(np.load(folder / "images.npy"), Normalization.model_validate_json(sys.argv[3]))
for own in sorted(path for path in folder.iterdir() if path.is_dir()):
    np.save(answers / own.name, one_by_one(session((own / INT8_FILE).read_bytes()), inputs))
    if (own / MANIFEST).exists():
        manifest = read_manifest((own / MANIFEST).read_bytes())
        print(own.name, len(self_test(own, manifest, manifest.artifact, timeout=600).logits))
"""


@pytest.fixture(scope="module")
def rootfs() -> Path:
    return root_file_system()


@dataclass(frozen=True)
class Fleet:
    """A deployment whose head learner is an emulated board, after its run.

    Attributes:
        deployment: of it.
        out: the run folder.
        board: the head learner.
    """

    deployment: Deployment
    out: Path
    board: Path


@pytest.fixture(scope="module")
def fleet(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One run for all tests."""
    folder = tmp_path_factory.mktemp("a")
    board = Board(rootfs, folder, "cortex-a53")

    class Mixed(Deployment):
        def start(self, name: str, *arguments: str, within: tuple[str, ...] = ()) -> None:
            if name != "device-1":
                super().start(name, *arguments, within=within)
                return
            emulated = board.command("python3", "-P", "-m", "fedstill.cli", *arguments)
            with (self.folder / f"{name}.out").open("ab") as output:
                self._running[name] = subprocess.Popen(emulated, stdout=output, stderr=subprocess.STDOUT)

    found, out = Mixed(folder, devices=2, scenario=ONE_ROUND, copied=False), folder / "run"
    try:
        found.up()
        eventually(found.whole, "the board's connection")
        run = command("server", "run", str(found.file), "--home", str(found.server), "--out", str(out))
        with (folder / "run.out").open("wb") as told:
            done = subprocess.run(run, stdout=told, stderr=subprocess.STDOUT, timeout=SLOW, check=False)
        assert done.returncode == 0, (folder / "run.out").read_text()
        yield Fleet(found, out, found.device(1))
    finally:
        found.down()


def test_the_edge_packages_install_and_import_on_the_oldest_core(rootfs: Path, tmp_path: Path) -> None:
    found = json.loads(Board(rootfs, tmp_path, "cortex-a53").python(IMPORT, timeout=SLOW))
    assert found["machine"] == "aarch64"
    assert found["place"].startswith("/opt/fedstill/")
    assert found["class"] == "pi4"  # by its features; the memory is this machine's
    assert set(found["packages"]) == {"flwr", "onnxruntime"}
    assert found["emulated"]
    assert set(found["modules"]).isdisjoint({"torch", "onnx"})


def test_a_board_without_torch_takes_part_in_a_run(fleet: Fleet) -> None:
    (row,) = rows(fleet.out)
    assert (row["answers"], row["trained"], row["refused"]) == (2, 2, {})
    assert row["device_steps"]["zero2w"] > 0
    assert row["device_accuracy"]["zero2w"] is not None
    assert {path.name.split("-")[0] for path in (fleet.board / "parcels").iterdir()} == {"proxy", "backbone"}
    log = (fleet.board / "logs" / "agent.log").read_text()
    assert "bytes fetched" in log


def test_it_answers_nearly_what_a_simulated_device_does(fleet: Fleet, tmp_path: Path) -> None:
    """The backbone's integers are the same on both processors; the head's sums are rounded otherwise."""
    fedstill("simulate", str(fleet.deployment.file), "--out", str(tmp_path / "run"), "--workers", "1")
    (ours,), (theirs,) = rows(fleet.out), rows(tmp_path / "run")
    for name, accuracy in theirs["device_accuracy"].items():
        assert ours["device_accuracy"][name] == pytest.approx(accuracy, abs=0.01)
    assert ours["device_steps"] == theirs["device_steps"]
    assert ours["entropy_before"] == pytest.approx(theirs["entropy_before"], abs=0.01)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory, small_options: list[str]) -> Path:
    """The folder of the released students of all classes of the main job, with images to ask them about."""
    out = tmp_path_factory.mktemp("students") / "run"
    fedstill("simulate", "digits", "--out", str(out), "--workers", "1", *small_options, "--set", "rounds=1")
    np.save(out / "students" / "images.npy", np.load(out / "assets" / "test-images.npy")[:IMAGES])
    return out / "students"


@pytest.mark.parametrize("core", CORES)
def test_every_class_of_students_answers_as_on_this_machine(
    core: str, students: Path, rootfs: Path, tmp_path: Path
) -> None:
    task, shared = load_task("simulations.sources:DIGITS"), tmp_path / "students"
    how = normalization(task)
    shutil.copytree(students, shared)
    board = Board(rootfs, tmp_path, core)
    said = board.python(ANSWER, str(shared), str(tmp_path), how.model_dump_json(), timeout=SLOW)
    inputs, exact = normalized(np.load(students / "images.npy"), how), 0
    for own in sorted(path for path in students.iterdir() if path.is_dir()):
        here = one_by_one(session((own / INT8_FILE).read_bytes()), inputs)
        there = np.load(tmp_path / f"{own.name}.npy")
        if all_integer(onnx.load(own / INT8_FILE)):
            assert np.array_equal(here, there)
            exact += 1
        assert np.abs(here - there).max() <= 1e-4 * max(1.0, float(np.abs(here).max()))
        assert (own.name in said) == (own / MANIFEST).exists()  # a release's own self-test holds there as well
    assert exact  # a fleet of float models alone would prove little


@pytest.fixture
def lab(rootfs: Path) -> Iterator[Engine]:
    """A lab whose devices have an image for arm64."""
    try:
        engine = Engine(connect(), "arm")
    except ConfigError as error:
        pytest.skip(str(error))
    recipe = Path(__file__).with_name("arm64.Dockerfile")
    build = ["docker", "build", "--quiet", "--platform", "linux/arm64", "--tag", IMAGE, "--file", str(recipe)]
    done = subprocess.run([*build, str(rootfs)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    engine.remove()  # of a test that was killed
    try:
        fedstill("lab", "up", "pi4=1", "pi5=1", "--name", "arm", "--device-image", IMAGE, *HEADS)
        yield engine
    finally:
        fedstill("lab", "down", "--name", "arm")
        engine.client.close()


def test_a_lab_runs_an_image_for_arm64_as_the_cores_of_its_classes(lab: Engine) -> None:
    found = {own.name: own for own in lab.containers()}
    server = next(own for name, own in found.items() if name.endswith("server"))
    for part, core in (("-pi4-", b"0xd08"), ("-pi5-", b"0xd0b")):
        device = next(own for name, own in found.items() if part in name)
        assert lab.run(device, "python", "-c", "import platform; print(platform.machine())").strip() == b"aarch64"
        assert core in lab.run(device, "cat", "/proc/cpuinfo")
    # With all of them wanted the first round waits until the slower one is there.
    quick = (
        "rounds=1",
        "devices=4",
        "exchange.quorum=1",
        "teacher.update.epochs=1",
        "students.distil.epochs=1",
        "central.fit.epochs=1",
    )
    settings = [*HEADS, *(part for change in quick for part in ("--set", change))]
    told = lab.run(server, "fedstill", "server", "run", "digits", "--out", "/var/lib/fedstill/server/runs/a", *settings)
    assert b"round 1: 2 answers" in told
