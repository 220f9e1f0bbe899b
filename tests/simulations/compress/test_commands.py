import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedstill.device_classes import Budget
from fedstill.errors import ConfigError, DataError, FedstillError, RunFolderError
from fedstill.release.verify import verify_folder
from server.delivery.summary import Found, Summary
from server.release.home import default_folder
from server.release.keys import ROOT, read_trust
from simulations.compress.commands import compress
from simulations.compress.finish import JSON, PICTURE, STUDENT
from simulations.compress.finished import Finished, open_run
from simulations.compress.plan import ClassFile
from simulations.compress.prepare import latency_of
from simulations.compress.search import STATES
from simulations.methods import load_method
from simulations.run_folder import SUMMARY
from simulations.scenario import dump


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_a_search_leaves_a_front_a_picture_and_a_signed_student(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    compress("mcu", run=finished, out=out, trials=1, steps=120)
    found = json.loads((out / JSON).read_text())
    assert found["chosen"]["refused"] == []
    assert found["chosen"]["trial"] == found["hand_made"]["trial"] == found["front"][0]["trial"] == 0
    assert found["latency_from"] == "this machine"
    assert found["validation"] == {"samples": 30 + 50, "labelled": 30}
    assert found["chosen"]["test_accuracy"] > 0.5
    assert found["chosen"]["memory_bytes"] <= found["budget"]["ram_bytes"]
    assert (out / PICTURE).read_bytes().startswith(b"\x89PNG")
    manifest, _ = verify_folder(out / STUDENT, read_trust(default_folder() / ROOT), datetime.now(UTC))
    assert manifest.student == found["chosen"]["student"]
    assert manifest.metrics["accuracy_int8"] == found["chosen"]["test_accuracy"]
    assert "(chosen) (hand-made)" in capsys.readouterr().out
    before = (out / STUDENT / "timestamp.json").read_bytes()
    (out / f".{STUDENT}.1.tmp").mkdir()  # a release was killed
    (out / STATES / ".0001.pt.1.tmp").write_bytes(b"half")
    compress(out=out, resume=True)  # nothing is left to do, and nothing is done twice
    assert (out / STUDENT / "timestamp.json").read_bytes() == before
    assert not [*out.rglob(".*.tmp")]
    assert "(chosen) (hand-made)" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["flash_bytes", "parameters"])
def test_a_budget_that_nothing_meets_is_refused_before_anything_is_written(
    limit: str, finished: Path, tmp_path: Path
) -> None:
    board, out = tmp_path / "board.toml", tmp_path / "out"
    board.write_text(f'name = "board"\nstudent = "tiny-separable-s"\nbudget = {{ {limit} = 9, ram = "activations" }}')
    with pytest.raises(ConfigError, match=r"what comes nearest, pooled-separable\[1/1\].* where 9 are allowed") as told:
        compress(str(board), run=finished, out=out)
    assert "\n" not in str(told.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('name = "board"\nbudget = {}', "student: Field required"),
        (
            'name = "board"\nstudent = "tiny-conv-s"\nbudget = { flash_bytes = -5 }',
            "budget.flash_bytes: Input should be",
        ),
        ('name = "board"\nstudent = "tiny-conv-s"\nbudget = { flash = 5 }', "did you mean 'flash_bytes'"),
        ('name = "A board"\nstudent = "tiny-conv-s"\nbudget = {}', "name: String should match"),
        ('name = "board"\nstudent = "fedgen-mnist"\nbudget = {}', "can't be searched"),
        ('name = "board"\nstudent = "tiny-conv-xxl"\nbudget = {}', "can't be searched"),
        (
            'name = "board"\nstudent = "tiny-conv-s"\nbudget = { latency_ms = inf }',
            "latency_ms: Input should be a finite number",
        ),
        ('name = "board"\nstudent = "pooled-conv[4/4/4/4/4/4]"\nbudget = {}', r"fails on images of \[1, 8, 8\]"),
        ("name = board", "not valid TOML"),
    ],
)
def test_a_class_file_that_is_none_is_refused_in_one_line(
    content: str, message: str, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board.toml"
    board.write_text(content)
    with pytest.raises(ConfigError, match=message) as told:
        compress(str(board), run=finished, out=tmp_path / "out")
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_students_took_too_few_steps_is_refused_in_one_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finished, "steps", 15)
    with pytest.raises(ConfigError, match=r"took 15 steps, too few .* give --steps, 16 or more"):
        compress("mcu", run=finished, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scenario_whose_method_leaves_no_soft_labels_is_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(dump(load_method("digits", "fedavg")))
    with pytest.raises(RunFolderError, match=r"own\.toml: method fedavg leaves no soft labels"):
        compress("mcu", scenario=str(tmp_path / "own.toml"), out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


def test_commands_that_make_no_sense_are_refused(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases: dict[str, dict[str, Any]] = {
        "no device class 'mcv' in scenario digits; did you mean 'mcu'": {"device_class": "mcv", "run": finished},
        "either --run": {"device_class": "mcu"},
        "which device class": {"run": finished},
        "no run here": {"device_class": "mcu", "run": tmp_path},
        "--data-dir is for --scenario": {"device_class": "mcu", "run": finished, "data_dir": tmp_path},
        "no search to resume": {"resume": True},
        "leave out what changes it": {"resume": True, "steps": 20},
    }
    for message, options in cases.items():
        with pytest.raises(FedstillError, match=message):
            compress(**{"out": out, **options})
        assert not out.exists()


def test_an_emulated_processor_is_searched_on_by_nobody(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.compress.commands.emulated", lambda: True)
    with pytest.raises(ConfigError, match="this processor is emulated"):
        compress("mcu", run=finished, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_or_damaged_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    proxy = folder / "assets" / "proxy-images.npy"
    np.save(proxy, np.load(proxy)[:, :, :4])
    with pytest.raises(
        DataError, match=r"proxy images are uint8 \[200, 1, 4, 8\], expected uint8 \[samples, 1, 8, 8\]"
    ):
        open_run(folder)
    proxy.write_bytes(b"nothing")
    with pytest.raises(DataError, match="proxy samples are damaged or missing"):
        open_run(folder)
    for name in ("guard", "server"):
        labels = folder / "assets" / f"{name}-labels.npy"
        content = labels.read_bytes()
        labels.write_bytes(b"")
        with pytest.raises(DataError, match=f"{name} samples are damaged or missing"):
            open_run(folder)
        labels.write_bytes(content)
    (folder / "checkpoints" / "round-00002" / "state.pt").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"state\.pt: damaged or missing"):
        open_run(folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(RunFolderError, match=r"its checkpoints, which have the soft labels, are gone"):
        open_run(folder)
    (folder / SUMMARY).write_text("{")
    with pytest.raises(DataError, match=r"summary\.json: damaged"):
        open_run(folder)
    (folder / SUMMARY).unlink()
    with pytest.raises(RunFolderError, match="not finished"):
        open_run(folder)


def test_latency_follows_the_classs_own_devices_where_they_told_of_the_hand_made_student(
    finished: Path, tmp_path: Path
) -> None:
    run = open_run(finished)
    kind = ClassFile(name="mcu", student="tiny-separable-s", budget=Budget())
    one = Found(
        device_class="mcu", version=3, task="digits", student=kind.student, devices=2, outcomes={}, latency_ms_p50=8.0
    )
    path = tmp_path / "telemetry.json"
    path.write_text(Summary(found=(one,)).model_dump_json())
    told = latency_of(kind, run, path, here_ms=0.5)
    assert (told.source, told.scale) == ("devices", 16.0)
    other = kind.model_copy(update={"student": "tiny-conv-s"})
    assert latency_of(other, run, path, here_ms=0.5).source == "this machine"
    assert latency_of(kind, run, None, here_ms=0.5).source == "this machine"


def test_no_test_sample_is_learned_from_or_judged_on(finished: Path) -> None:
    run = open_run(finished)
    test = {image.tobytes() for image in run.test[0]}
    material = run.material(steps=20)
    assert material.server is not None
    learned = {image.tobytes() for image in (*material.images, *material.server[0])}
    judged = {image.tobytes() for image in material.validation[0]}
    assert not test & (learned | judged | {image.tobytes() for image in material.calibration})
    assert not learned & judged
