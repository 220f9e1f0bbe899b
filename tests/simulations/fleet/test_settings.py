import sys
from pathlib import Path

import pytest

from fedstill.cli import main
from fedstill.errors import ConfigError
from fedstill.flower import RoundPolicy
from fedstill.speed import Speed
from fedstill.tasks import load_task
from server.delivery.summary import Found, Summary
from simulations.deployed import prepare
from simulations.fleet.run import check, clock_of
from simulations.fleet.settings import builtin, raw_fleet
from simulations.fleet.speeds import macs, memory_needed
from simulations.methods import load_method
from simulations.scenario import dump, load_scenario
from simulations.telemetry import adopt
from simulations.validate import validate

SPEEDS = "train_samples_per_second = 50\npredict_samples_per_second = 200\n"
CLASS = SPEEDS + "up_kbit_per_second = 1e3\ndown_kbit_per_second = 1e3"
MINE = "\n".join(f"[classes.{name}]\n{CLASS}\n" for name in ("pi5", "pi4", "zero2w", "mcu"))


def fleet_file(folder: Path, content: str = MINE) -> Path:
    path = folder / "mine.toml"
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", builtin())
@pytest.mark.parametrize("scenario", ["digits", "mnist", "cifar10"])
def test_built_in_fleets_have_the_classes_of_built_in_scenarios(name: str, scenario: str) -> None:
    check(load_scenario(scenario, [f"fleet={name}"]))


def test_a_scenario_with_a_fleet_is_written_and_read_back(tmp_path: Path) -> None:
    changes = [f"fleet={fleet_file(tmp_path)}", "fleet.rounds.policy=deadline", "fleet.rounds.deadline_seconds=30"]
    scenario = load_scenario("digits", changes)
    assert scenario.fleet is not None
    assert scenario.fleet.rounds.deadline_seconds == 30
    (tmp_path / "config.toml").write_text(dump(scenario))
    assert load_scenario(str(tmp_path / "config.toml")) == scenario


def test_a_scenario_file_names_a_fleet_file_beside_it(tmp_path: Path) -> None:
    fleet_file(tmp_path)
    (tmp_path / "scenario.toml").write_text('fleet = "mine.toml"\n' + dump(load_scenario("digits")))
    fleet = load_scenario(str(tmp_path / "scenario.toml")).fleet
    assert fleet is not None
    assert fleet.classes["mcu"].train_samples_per_second == 50


@pytest.mark.parametrize("changes", [[], ["exchange.active=7"], ["exchange.quorum=0.01"], ["exchange.quorum=0.31"]])
def test_a_scenarios_quorum_is_that_of_its_rounds(changes: list[str]) -> None:
    scenario = load_scenario("digits", changes)
    wire = scenario.exchange
    policy = RoundPolicy(scenario.devices, wire.quorum, active=wire.active)
    assert scenario.quorum == policy.needed(scenario.devices)


def test_a_scenario_without_a_fleet_says_nothing_about_one(tmp_path: Path) -> None:
    scenario = load_scenario("digits")
    assert "fleet" not in dump(scenario)
    assert clock_of(scenario, tmp_path) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (MINE.replace("train_samples", "train_sample", 1), "did you mean 'train_samples_per_second'?"),
        (MINE.replace("train_samples_per_second = 50", "train_samples_per_second = -1", 1), "given: -1"),
        (MINE.replace("train_samples_per_second = 50", "train_samples_per_second = 1e-3", 1), "given: 0.001"),
        (MINE.replace("predict_samples_per_second = 200", "predict_samples_per_second = 1e-300", 1), "given: 1e-300"),
        (MINE.replace("up_kbit_per_second = 1e3", "up_kbit_per_second = 1e-10", 1), "given: 1e-10"),
        (MINE.replace("down_kbit_per_second = 1e3", "down_kbit_per_second = 1e-10", 1), "given: 1e-10"),
        (MINE.replace(SPEEDS, "macs_per_second = 1e-10\n", 1), "given: 1e-10"),
        (MINE.replace(SPEEDS, "macs_per_second = 1000\n", 1), "a device has to reach 0.01 of both"),
        (MINE.replace("train_samples_per_second = 50\n", "", 1), "nothing says how fast it trains"),
        (MINE.replace("predict_samples_per_second = 200\n", "", 1), "nothing says how fast it predicts"),
        (MINE + '[rounds]\npolicy = "deadline"\n', "needs deadline_seconds"),
        (MINE + '[rounds]\npolicy = "buffered"\n', "needs buffer"),
        (MINE + '[rounds]\npolicy = "sync"\n', "'synchronous', 'deadline' or 'buffered'"),
        (MINE + "[classes.mcu.availability]\npattern = 'daily'\nfrom_hour = 3\nto_hour = 3\n", "are the same"),
        (MINE + "[classes.mcu.power]\nidle_watts = inf\n", "idle_watts"),
        ("[classes.pi5]\n" + CLASS, "has no class 'pi4'"),
        (MINE + '[rounds]\npolicy = "buffered"\nbuffer = 9\n', "below the quorum of 10"),
        (MINE + '[rounds]\npolicy = "buffered"\nbuffer = 21\n', "21 answers of 20 devices"),
        (MINE + "[classes.mcu]\n", "not valid TOML"),
        (MINE.replace("[classes.mcu]", "[classes.mcu]\nmemory_bytes = 1000"), "memory_bytes is 1000"),
        (MINE.replace("predict_samples_per_second = 200", "predict_from_telemetry = true"), "no device of this class"),
    ],
)
def test_a_wrong_fleet_is_one_clear_line_exit_code_2_and_no_folder(
    content: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fedstill", "simulate", "digits", "--out", str(tmp_path / "run"), "--fleet"]
    monkeypatch.setattr(sys, "argv", [*command, str(fleet_file(tmp_path, content))])
    with pytest.raises(SystemExit) as caught:
        main()
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert reason in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("referense", "did you mean 'reference'?"), ("/no/such.toml", "No such file")]
)
def test_a_fleet_that_is_not_there_is_named(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        raw_fleet(name)


def test_methods_with_rounds_of_their_own_and_real_devices_have_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no virtual time"):
        load_method("digits", "fedavg", ["fleet=reference"])
    with pytest.raises(ConfigError, match="fleet is for simulations"):
        prepare("digits", ["fleet=reference"], tmp_path / "run", {0: "pi5"}, tmp_path / "keys")


def test_the_prediction_speed_is_what_the_classes_own_devices_told(tmp_path: Path) -> None:
    told = Found(
        device_class="pi4",
        version=3,
        task="digits",
        student="tiny-conv-s",
        devices=7,
        outcomes={"committed": 7},
        latency_ms_p50=4.0,
    )
    (tmp_path / "told.json").write_text(Summary(found=(told,)).model_dump_json())
    by_telemetry = SPEEDS.replace("predict_samples_per_second = 200", "predict_from_telemetry = true")
    own = fleet_file(tmp_path, MINE.replace(f"[classes.pi4]\n{SPEEDS}", f"[classes.pi4]\n{by_telemetry}"))
    scenario = load_scenario("digits", [f"fleet={own}", f"telemetry='{tmp_path / 'told.json'}'"])
    validate(scenario)
    adopt(scenario, tmp_path)
    clock = clock_of(scenario, tmp_path)
    assert clock is not None
    assert clock.fleet.speeds["pi4"].predict == 250
    assert clock.fleet.speeds["pi4"].source == "telemetry: 7 devices, version 3"
    assert clock.fleet.speeds["pi5"].predict == 200


def benchmark(folder: Path, student: str = "tiny-conv-s") -> str:
    """Write what a device measured; return the file's name."""
    told = Speed(
        student=student,
        input_shape=(1, 8, 8),
        classes=10,
        batch=64,
        machine="Raspberry Pi 4",
        train_samples_per_second=300,
        predict_samples_per_second=900,
    )
    (folder / "pi4.json").write_text(told.model_dump_json())
    return "pi4.json"


def test_the_speeds_are_what_a_device_of_the_class_measured_and_stay_so_when_its_file_is_gone(tmp_path: Path) -> None:
    own = MINE.replace(f"[classes.pi4]\n{SPEEDS}", f'[classes.pi4]\nbenchmark = "{benchmark(tmp_path)}"\n')
    scenario = load_scenario("digits", [f"fleet={fleet_file(tmp_path, own)}"])
    (tmp_path / "pi4.json").unlink()
    (tmp_path / "config.toml").write_text(dump(scenario))
    clock = clock_of(load_scenario(str(tmp_path / "config.toml")), tmp_path)
    assert clock is not None
    speeds = clock.fleet.speeds["pi4"]
    assert (speeds.train, speeds.predict, speeds.source) == (300, 900, "benchmark: Raspberry Pi 4")
    assert clock.fleet.speeds["pi5"].train == 50


def test_a_scenario_file_with_a_fleet_of_its_own_names_a_benchmark_beside_it(tmp_path: Path) -> None:
    scenario = dump(load_scenario("digits", [f"fleet={fleet_file(tmp_path)}"]))
    begin, end = scenario.split("[fleet.classes.pi4]\n")
    (tmp_path / "scenario.toml").write_text(
        f'{begin}[fleet.classes.pi4]\nbenchmark = "{benchmark(tmp_path)}"\n{end.replace(SPEEDS.split()[0], "#", 1)}'
    )
    fleet = load_scenario(str(tmp_path / "scenario.toml")).fleet
    assert fleet is not None
    assert fleet.classes["pi4"].benchmark is not None


def test_a_benchmark_of_another_student_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    own = MINE.replace(f"[classes.pi4]\n{SPEEDS}", '[classes.pi4]\nbenchmark = "pi4.json"\n')
    path = fleet_file(tmp_path, own)
    with pytest.raises(ConfigError, match=r"pi4\.json: no device's speed can be read here"):
        load_scenario("digits", [f"fleet={path}"])
    benchmark(tmp_path, "tiny-conv-m")
    with pytest.raises(
        ConfigError, match="it is of tiny-conv-m on images of 1x8x8 and 10 classes, the run has tiny-conv-s"
    ):
        check(load_scenario("digits", [f"fleet={path}"]))


def test_macs_and_memory_are_those_of_the_student() -> None:
    task = load_task("simulations.sources:DIGITS")
    assert 10_000 < macs("tiny-separable-s", task) < macs("tiny-conv-m", task) < 10_000_000
    weights = memory_needed("tiny-conv-m", task, 0, 1) - 4 * 64
    assert memory_needed("tiny-conv-m", task, 100, 1) - 4 * 64 - weights == 100 * 48
    assert weights == 12 * 16_794
