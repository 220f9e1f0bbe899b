"""The main job, started as a user starts it, on the real digits cut to seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
import pytest

from fedstill.release.manifest import MANIFEST
from fedstill.release.selftest import self_test
from fedstill.release.verify import METADATA, verify_folder
from server.delivery.summary import Found, Summary
from server.release.home import default_folder
from server.release.keys import open_keys
from server.release.runtime import logits
from simulations.scenario import load_scenario
from simulations.sources import DIGITS, load_digits

COMMAND = [str(Path(sys.executable).parent / "fedstill"), "simulate", "digits"]


def simulate(out: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, "--out", str(out), *options], capture_output=True, text=True, timeout=300, check=False
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def outcome(out: Path) -> dict[str, Any]:
    """Return what DESIGN's promises 3 and 4 are about: summary and rounds without timings, memory and envelopes."""
    summary = json.loads((out / "summary.json").read_text())
    for key in ("timing", "peak_rss_bytes", "engine"):
        del summary[key]
    for key in ("messages", "envelope_bytes"):
        del summary["wire"][key]
    for facts in summary["device_classes"].values():
        del facts["latency_ms_p50"], facts["latency_fp32_ms_p50"]
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    students = {
        path.relative_to(out).as_posix(): path.read_bytes() for path in sorted((out / "students").rglob("*.onnx"))
    }
    return {"summary": summary, "rounds": rounds, "students": students}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, small_options: list[str]) -> Path:
    """An undisturbed run with one host and two workers."""
    out = tmp_path_factory.mktemp("reference") / "run"
    simulate(out, *small_options, "--workers", "2")
    return out


def test_more_devices_than_there_are_samples_for_share_them_and_the_terminal_says_so_with_rate_and_time_left(
    tmp_path: Path, small_options: list[str]
) -> None:
    few = ["--devices", "8", "--set", "data.private_samples=60", "--set", "rounds=1"]
    said = simulate(tmp_path / "run", *small_options, *few).stdout
    assert "60 private samples are few for 8 devices: drawn with replacement" in said
    assert re.search(r"rounds: 1/1 +\d+ s, 0 s left", said)


def test_the_run_folder_holds_everything_that_is_promised(reference: Path) -> None:
    names = {path.name for path in reference.iterdir()}
    assert {"summary.json", "rounds.jsonl", "config.toml", "students", "checkpoints", "report.html"} <= names
    summary = json.loads((reference / "summary.json").read_text())
    assert list(summary) == [
        "scenario",
        "seed",
        "rounds",
        "engine",
        "commit",
        "teacher",
        "central",
        "wire",
        "device_classes",
        "timing",
        "peak_rss_bytes",
    ]
    for name, facts in summary["device_classes"].items():
        assert facts["devices"] == 1
        for key, value in facts.items():
            if key.startswith("accuracy"):
                assert 0 <= value <= 1
        folder = reference / "students" / name
        models = {"student.onnx", "student.fp32.onnx"}
        sources = {"student.h", "student.c", "student_selftest.c"} if name == "mcu" else set()
        assert {path.name for path in folder.iterdir()} == {*models, *sources, MANIFEST, *METADATA}
        assert facts["refused"] == []
        manifest, _ = verify_folder(folder, open_keys(default_folder()).trust, datetime.now(UTC))
        assert manifest.device_class == name
        for model in models:
            self_test(folder, manifest, model)
    assert len((reference / "rounds.jsonl").read_text().splitlines()) == 2


def test_the_summary_tells_what_the_released_files_do(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    arrays = load_digits(None)
    for facts in summary["device_classes"].values():
        content = (reference / facts["artifact"]).read_bytes()
        predicted = logits(content, DIGITS, arrays.test_images).argmax(axis=1)
        assert float((predicted == arrays.test_labels).mean()) == facts["accuracy_released"]
        assert len(content) == facts["onnx_bytes"]
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        (value,) = session.get_inputs()
        assert value.type == "tensor(float)"
        one = session.run(None, {value.name: np.zeros((1, 1, 8, 8), np.float32)})[0]
        assert one.dtype == np.float32


def test_a_class_that_misses_its_budget_is_refused_and_the_others_are_released(
    small_options: list[str], tmp_path: Path
) -> None:
    slow, other_student = (
        Found(
            device_class=name,
            version=2,
            task="digits",
            student=student,
            devices=3,
            outcomes={"committed": 3},
            latency_ms_p50=60.0,
        )
        for name, student in (("pi4", "tiny-conv-s"), ("pi5", "tiny-conv-l"))
    )
    (tmp_path / "telemetry.json").write_text(Summary(found=(slow, other_student)).model_dump_json())
    changes = ["--set", "device_classes.mcu.budget.flash_bytes=5000"]
    changes += ["--set", f"telemetry='{tmp_path / 'telemetry.json'}'"]
    result = simulate(tmp_path / "run", *small_options, *changes, "--keys", str(tmp_path / "keys"))
    assert "mcu refused" in result.stdout
    assert "3 devices run version 2: 60.0 ms, slow" in result.stdout
    classes = json.loads((tmp_path / "run" / "summary.json").read_text())["device_classes"]
    assert {name: len(facts["refused"]) for name, facts in classes.items()} == {
        "pi5": 0,
        "pi4": 1,
        "zero2w": 0,
        "mcu": 1,
    }
    assert classes["pi4"]["refused"] == ["latency 60.00 ms (median of the class's devices), allowed 50 ms"]
    assert "allowed 5 kB" in classes["mcu"]["refused"][0]
    assert (tmp_path / "run" / classes["mcu"]["artifact"]).is_file()
    folders = {name: {path.name for path in (tmp_path / "run" / "students" / name).iterdir()} for name in classes}
    assert folders["mcu"] == {"student.onnx", "student.fp32.onnx"}
    assert {MANIFEST, *METADATA} < folders["pi5"]
    command = [*COMMAND[:1], "release", "verify", "--keys", str(tmp_path / "keys")]
    for name, facts in classes.items():
        folder = tmp_path / "run" / "students" / name
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "missing; this is no signed release" in done.stderr) == (
            (1, True) if facts["refused"] else (0, False)
        )
    done = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"fedstill: {tmp_path / 'none'}: no such folder\n")


def test_bytes_are_those_of_the_packets_that_each_device_got(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    wire, classes = summary["wire"], summary["device_classes"].values()
    up = sum(facts["uplink_bytes_per_round"] * facts["devices"] * summary["rounds"] for facts in classes)
    down = sum(facts["downlink_bytes_per_round"] * facts["devices"] * summary["rounds"] for facts in classes)
    assert up == wire["uplink_bytes"] > 0
    assert down == wire["downlink_bytes"] > 0
    assert wire["proxy_bytes"] == 4 * (reference / "assets" / "proxy-images.npy").stat().st_size


def test_the_report_is_one_self_contained_page(reference: Path) -> None:
    page = (reference / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    for name in ("pi5", "pi4", "zero2w", "mcu"):
        assert name in page


@pytest.mark.parametrize("how", [("--hosts", "4", "--workers", "1"), ("--hosts", "2", "--workers", "2")])
def test_the_same_seed_gives_the_same_result_for_any_number_of_hosts_and_workers(
    how: tuple[str, ...], reference: Path, small_options: list[str], tmp_path: Path
) -> None:
    simulate(tmp_path / "run", *small_options, *how)
    assert outcome(tmp_path / "run") == outcome(reference)


def test_the_ray_engine_gives_the_same_result(reference: Path, small_options: list[str], tmp_path: Path) -> None:
    simulate(tmp_path / "run", *small_options, "--engine", "ray", "--hosts", "2")
    assert outcome(tmp_path / "run") == outcome(reference)


def test_flwr_run_gives_the_same_result(reference: Path, tmp_path: Path) -> None:
    home = tmp_path / "flwr-home"
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "PATH": f"{COMMAND[0].rpartition('/')[0]}:{os.environ['PATH']}",
    }
    places = {"scenario": reference / "config.toml", "out": tmp_path / "run", "keys": tmp_path / "keys"}
    run_config = " ".join(f"{key}={json.dumps(str(place))}" for key, place in places.items())
    federation = "num-supernodes=2 client-resources-num-cpus=1"
    command = ["flwr", "run", ".", "--stream", "--federation-config", federation, "-c", run_config]
    try:
        result = subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (tmp_path / "run" / "summary.json").exists(), result.stdout[-3000:] + result.stderr[-3000:]
    finally:
        _stop_superlink(home)
    # The app runs from an unpacked bundle, which is no checkout and has no commit.
    same, expected = outcome(tmp_path / "run"), outcome(reference)
    assert same["summary"].pop("commit") is None
    expected["summary"].pop("commit")
    assert same == expected
    verify_folder(tmp_path / "run" / "students" / "mcu", open_keys(tmp_path / "keys").trust, datetime.now(UTC))


def _stop_superlink(home: Path) -> None:
    """Stop the SuperLink that `flwr run` left behind, and all that it started."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def test_another_seed_gives_another_result(reference: Path, small_options: list[str], tmp_path: Path) -> None:
    simulate(tmp_path / "run", *small_options, "--seed", "1")
    assert outcome(tmp_path / "run")["rounds"] != outcome(reference)["rounds"]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_to_the_result_of_an_undisturbed_one(
    sign: signal.Signals, reference: Path, small_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "--out", str(out), *small_options, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a script inherits an ignored SIGINT; a person at a terminal does not.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (out / "rounds.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, sign) if sign == signal.SIGKILL else process.send_signal(sign)
    _, told = process.communicate(timeout=20)
    assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 130)
    if sign == signal.SIGINT:
        assert f"fedstill: stopped; continue with: fedstill simulate --resume --out {out}" in told
    assert not (out / "summary.json").exists()
    simulate_resumed = subprocess.run(
        [*COMMAND[:2], "--resume", "--out", str(out)], capture_output=True, text=True, timeout=300, check=False
    )
    assert simulate_resumed.returncode == 0, simulate_resumed.stderr
    assert "initial teacher" not in simulate_resumed.stdout
    assert outcome(out) == outcome(reference)


def test_a_run_repeats_from_its_own_configuration_file(reference: Path, tmp_path: Path) -> None:
    command = [*COMMAND[:2], str(reference / "config.toml"), "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert outcome(tmp_path / "run") == outcome(reference)


def test_several_seeds_also_those_added_later_are_one_configuration_with_a_mean_and_deviation(
    small_options: list[str], tmp_path: Path
) -> None:
    simulate(tmp_path / "runs", *small_options, "--seeds", "0")
    command = [*COMMAND[:2], "--out", str(tmp_path / "runs"), "--resume", "--seeds", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    begun = [load_scenario(str(tmp_path / "runs" / f"seed-{seed}" / "config.toml")) for seed in (0, 1)]
    assert begun[1] == begun[0].model_copy(update={"seed": 1})
    seeds = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    values = [
        json.loads((tmp_path / "runs" / f"seed-{seed}" / "summary.json").read_text())["teacher"]["accuracy_final"]
        for seed in (0, 1)
    ]
    assert seeds["mean"]["teacher"]["accuracy_final"] == pytest.approx(np.mean(values))
    assert seeds["std"]["teacher"]["accuracy_final"] == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--set", "device.revist.epochs=1"], "did you mean 'revisit'"),
        (["--set", "partition.alpha=-1"], "partition.alpha"),
        (["--rounds", "0"], "rounds"),
        (["--set", "partition.rule=dirichlett"], "did you mean 'dirichlet'"),
        (["--set", "teacher.architecture=tiny-conv-"], "did you mean 'tiny-conv-"),
        (["--set", "task=/no/file.py:task"], "no such Python file"),
        (["--set", "data.proxy_samples=1290"], "leave none for the devices"),
        (["--devices", "2"], "2 devices can't fill 4 device classes"),
        (["--seeds", "0,x"], "whole numbers"),
        (["--seeds", "0,1", "--set", "data.proxy_samples=1290"], "leave none for the devices"),
        (["--engine", "rai"], "rai"),
        (["--method", "fedavgg"], "did you mean 'fedavg'"),
        (["--resume", "--method", "fd"], "no run to resume"),
        (["--resume"], "no run to resume"),
        (["--resume", "--rounds", "3"], "leave out options that change it"),
        (["--seed", "1", "--seeds", "0,1"], "exclude each other"),
        (["--keys", "/dev/null/keys"], "name another folder with --keys"),
        (["--set", "telemetry=/no/file.json"], "no telemetry can be read here"),
        (["--set", "device_classes.mcu.budget.flash_bytes=0"], "device_classes.mcu.budget.flash_bytes"),
    ],
)
def test_bad_input_is_one_clear_line_exit_code_2_and_no_folder(wrong: list[str], reason: str, tmp_path: Path) -> None:
    result = simulate(tmp_path / "run", *wrong, check=False)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_scenario_names_the_nearest_one(tmp_path: Path) -> None:
    command = [*COMMAND[:2], "digitz", "--out", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.strip() == "fedstill: unknown scenario 'digitz'; did you mean 'digits'?"


def test_missing_data_files_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    command = [*COMMAND[:2], "mnist", "--out", str(tmp_path / "run"), "--data-dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "ylecun/mnist/mnist" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_left_alone(reference: Path, small_options: list[str]) -> None:
    before = outcome(reference)
    result = simulate(reference, *small_options, check=False)
    assert result.returncode == 2
    assert "already in use" in result.stderr
    assert "--resume" in result.stderr
    assert outcome(reference) == before


def test_a_released_student_reaches_a_device_and_is_taken_back_from_it(reference: Path, tmp_path: Path) -> None:
    own, keys = tmp_path / "release", default_folder()
    shutil.copytree(reference / "students" / "pi5", own)
    store, state, home = tmp_path / "store", tmp_path / "state", tmp_path / "home"

    def fedstill(*arguments: str | Path, code: int = 0) -> str:
        command = [COMMAND[0], *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    fedstill("release", "publish", own, store)
    command = [COMMAND[0], "server", "deliver", str(store), "--insecure", "--address", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--state", str(state)], stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            entries = (json.loads(line) for line in service.stderr)
            port = next(entry["port"] for entry in entries if entry["message"] == "serving")
            update = (
                "client",
                "update",
                "--server",
                f"127.0.0.1:{port}",
                "--insecure",
                "--class",
                "pi5",
                "--home",
                home,
            )
            fedstill("client", "trust", keys / "root.json", "--home", home)
            first = json.loads((own / MANIFEST).read_text())["version"]
            assert f"version {first} runs" in fedstill(*update)
            fedstill("release", "sign", own)
            fedstill("release", "publish", own, store)
            second = json.loads((own / MANIFEST).read_text())["version"]
            deadline = time.monotonic() + 120
            while f"version {second} runs" not in fedstill(*update):
                assert time.monotonic() < deadline, "the service never read the store again"
            fedstill("server", "rollout", "pi5", "--withdraw", "--version", second, "--state", state)
            assert f"version {second} is withdrawn" in fedstill(*update, code=1)
            assert f"running          version {first} " in fedstill("client", "status", "--home", home)
            assert f" {second} " in fedstill("server", "telemetry", "pi5", "--state", state)
        finally:
            service.terminate()
