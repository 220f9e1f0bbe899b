"""`fedstill client evaluate` on real signed releases, with real processes."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from client import probe
from client.commands import register
from client.evaluate.labelled import labelled
from client.evaluate.model import Bench
from client.updates.home import ROOT, Home
from client.updates.state import Installed
from fedstill.errors import ConfigError, DataError, FedstillError, ReleaseError
from fedstill.release.manifest import INT8_FILE, read_manifest
from server.release.keys import Keys
from tests.client.devices import HOW, IMAGES, LABELS, TRIGGER, make_release, version_of, write_model

app = typer.Typer()
register(app)


@app.callback()
def _root() -> None:
    pass


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["client", "evaluate", *map(str, arguments), "--seconds", "0.05"])


def failure(*arguments: str | Path) -> FedstillError:
    error = run(*arguments).exception
    assert isinstance(error, FedstillError)
    return error


@pytest.fixture
def home(tmp_path: Path, keys: Keys) -> Home:
    place = Home(tmp_path / "home")
    place.make()
    (place.folder / ROOT).write_bytes(keys.trust.content)
    return place


def test_json_has_every_figure_and_says_why_one_is_missing(
    releases: tuple[Path, Path], home: Home, tmp_path: Path
) -> None:
    expected = json.loads((releases[0] / "manifest.json").read_text())["self_test"]["expected"][INT8_FILE]["logits"]
    labels = np.array(expected).argmax(axis=1)
    labels[0] = (labels[0] + 1) % len(LABELS)
    np.savez(tmp_path / "own.npz", image=IMAGES, label=labels)
    found = run(releases[0], "--home", home.folder, "--data", tmp_path / "own.npz", "--json")
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout)
    own = content["files"][INT8_FILE]
    for latency in own["latency_ms"].values():
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert set(own["latency_ms"]) == {"1", str(len(os.sched_getaffinity(0)))}
    assert own["samples_per_second"] > 0
    assert own["peak_rss_bytes"] > 10_000_000
    assert own["bytes"] == (releases[0] / INT8_FILE).stat().st_size
    assert own["knowledge"]["accuracy"] == pytest.approx(5 / 6)
    assert {"noise", "brightness", "blur", "shift"} <= set(own["knowledge"]["disturbed"])
    assert all(levels["0"] == pytest.approx(5 / 6) for levels in own["knowledge"]["disturbed"].values())
    assert (own["power"] is None) == (content["power_missing"] is not None)
    assert content["machine"]["emulated"] is False


def test_an_emulated_machine_is_shown_as_one(
    releases: tuple[Path, Path], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(probe.look(), emulated=True)
    monkeypatch.setattr(probe, "look", lambda: machine)
    shown = run(releases[0], "--home", home.folder)
    assert shown.exit_code == 0, shown.output
    assert f"{machine.cores} emulated cores" in " ".join(shown.output.split())


def test_what_runs_on_the_device_is_evaluated_without_a_name_and_shown_as_a_table(
    releases: tuple[Path, Path], home: Home
) -> None:
    assert "nothing runs here yet" in str(failure("--home", home.folder))
    version = version_of(releases[0])
    home.slot(version).parent.mkdir(parents=True)
    home.slot(version).symlink_to(releases[0])
    running = Installed(version=version, file=INT8_FILE, sha256={})
    home.change(lambda state: state.model_copy(update={"running": running}))
    shown = run("--home", home.folder)
    assert shown.exit_code == 0, shown.output
    for word in ("latency p99", "peak RSS", "throughput", "no accuracy: no labelled data"):
        assert word in shown.output


def test_no_model_is_run_before_its_signature_holds(
    releases: tuple[Path, Path], home: Home, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = make_release(tmp_path / "changed", keys)
    (changed / INT8_FILE).write_bytes(b"x" + (changed / INT8_FILE).read_bytes()[1:])
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing may be started
    error = failure(changed, "--home", home.folder)
    assert isinstance(error, ReleaseError)
    assert "not the file that was signed" in str(error)
    assert "no trusted root" in str(failure(releases[0], "--home", tmp_path / "nowhere"))


def test_a_model_that_answers_otherwise_than_it_should_is_refused(home: Home, keys: Keys, tmp_path: Path) -> None:
    error = failure(make_release(tmp_path / "wrong", keys, "wrong"), "--home", home.folder)
    assert isinstance(error, ReleaseError)
    assert "self-test: logits differ" in str(error)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("shape.npz", DataError, "needs uint8"),
        ("label.npz", DataError, "is no class of task"),
        ("data.txt", ConfigError, "a data.toml is wanted"),
        ("none.npz", DataError, "no such file or folder"),
    ],
)
def test_data_that_do_not_fit_the_release_are_refused(
    name: str, kind: type[FedstillError], reason: str, releases: tuple[Path, Path], home: Home, tmp_path: Path
) -> None:
    np.savez(tmp_path / "shape.npz", image=IMAGES[:, :, 1:], label=np.zeros(len(IMAGES)))
    np.savez(tmp_path / "label.npz", image=IMAGES, label=np.full(len(IMAGES), 7))
    error = failure(releases[0], "--home", home.folder, "--data", tmp_path / name)
    assert isinstance(error, kind)
    assert reason in str(error)


def test_a_folder_of_folders_is_data_and_of_a_description_its_test_part(
    releases: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = read_manifest((releases[0] / "manifest.json").read_bytes())
    for label in LABELS[:2]:
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.fromarray(IMAGES[0, 0]).save(tmp_path / "photos" / label / "one.png")
    _, found = labelled(tmp_path / "photos", manifest)
    assert found.labels.tolist() == [0, 1]
    assert (found.images == IMAGES[:1]).all()
    np.savez(tmp_path / "train.npz", image=IMAGES, label=np.zeros(len(IMAGES), dtype=int))
    np.savez(tmp_path / "test.npz", image=IMAGES[:1], label=["star"])
    (tmp_path / "data.toml").write_text('format = "npz"\npath = "train.npz"\ntest = "test.npz"\n')
    source, found = labelled(tmp_path / "data.toml", manifest)
    assert (source, found.labels.tolist()) == (str(tmp_path / "test.npz"), [2])


def test_a_model_that_crashes_or_hangs_takes_only_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, reason in (("crashing", "indices element out of data bounds|InvalidArgument"), ("hanging", "it hung")):
        write_model(tmp_path / f"{kind}.onnx", kind)
        with Bench(tmp_path / f"{kind}.onnx", HOW, 3, 1) as bench:
            assert bench.predict(IMAGES).shape == (len(IMAGES), 3)
            monkeypatch.setattr("client.evaluate.model.SLOWEST", 1.0)
            with pytest.raises(ReleaseError, match=reason):
                bench.predict(TRIGGER)


def test_a_model_with_another_number_of_classes_gives_no_answer(tmp_path: Path) -> None:
    write_model(tmp_path / "plain.onnx")
    with (
        Bench(tmp_path / "plain.onnx", HOW, 4, 1) as bench,
        pytest.raises(ReleaseError, match="a row of 4 finite logits"),
    ):
        bench.predict(IMAGES)


def test_the_measured_process_ends_with_its_parent_even_in_the_midst_of_a_computation(tmp_path: Path) -> None:
    write_model(tmp_path / "hanging.onnx", "hanging")
    np.save(tmp_path / "images.npy", TRIGGER)
    code = (
        "import sys, threading; import numpy as np; from pathlib import Path; from client.evaluate.model import Bench;"
        "from tests.client.devices import HOW;"
        f"bench = Bench(Path({str(tmp_path / 'hanging.onnx')!r}), HOW, 3, 1);"
        "print(bench._process.pid, flush=True);"
        f"bench.predict(np.load({str(tmp_path / 'images.npy')!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.05)
