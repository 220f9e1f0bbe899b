from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from fedstill.plan import DevicePlan
from server.delivery.summary import Summary
from simulations.deployed import JOB, of_fleet, prepare, run_config
from simulations.run_folder import CONFIG
from simulations.scenario import load_scenario
from simulations.shelf import Shelf
from simulations.telemetry import told


def test_a_run_has_the_devices_and_the_classes_of_the_fleet() -> None:
    scenario = of_fleet("digits", ["rounds=2"], {0: "pi5", 4: "mcu", 5: "mcu"})
    assert (scenario.devices, scenario.rounds) == (3, 2)
    assert list(scenario.device_classes) == ["pi5", "mcu"]


def test_a_fleet_that_the_scenario_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="no device is enrolled"):
        of_fleet("digits", [], {})
    with pytest.raises(ConfigError, match="device 3 is of class jetson, for which scenario digits has no student"):
        of_fleet("digits", [], {0: "pi5", 3: "jetson"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("method.device='simulations.baselines.fd:answer'", "real devices don't know it"),
        ("attack.share=0.2", "attack.share is for simulations"),
        ("stream.window=20", "stream is for simulations"),
        ("device_classes.pi5.student='mine.py:Net'", "Net' is not built in"),
    ],
)
def test_what_real_devices_do_not_do_is_refused_before_the_run(change: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        prepare("digits", [change], tmp_path / "run", {0: "pi5"}, tmp_path / "keys")
    assert not (tmp_path / "run").exists()


def test_a_prepared_run_keeps_the_telemetry_that_its_end_needs(tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text(Summary(found=()).model_dump_json())
    changes = ["rounds=2", f"telemetry='{tmp_path / 'told.json'}'"]
    prepare("digits", changes, tmp_path / "run", {0: "pi5"}, tmp_path / "keys")
    (tmp_path / "told.json").unlink()
    assert told(load_scenario(str(tmp_path / "run" / CONFIG)), tmp_path / "run") == {}


def test_a_prepared_run_tells_devices_its_proxy_set_and_keeps_no_private_sample(tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare("digits", ["rounds=2"], out, {0: "pi5", 1: "pi4"}, tmp_path / "keys")
    config = run_config(out)
    plan = DevicePlan.read(config["plan"])
    assert config["job"] == JOB
    shelf = Shelf(out / "assets")
    assert plan.proxy_digest == shelf.context(0, 10).proxy_digest.hex()
    assert plan.proxy_size == len(shelf.proxy)
    assert set(plan.classes) == {"pi5", "pi4"}
    assert not list((out / "assets").glob("private-*"))
