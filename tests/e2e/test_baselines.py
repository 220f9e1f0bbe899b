"""Baselines keep the product's promises: same result however it is computed, resume, bytes as serialized."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedstill.release.verify import verify_folder
from server.release.keys import open_keys
from simulations.how import Engine, How
from simulations.launch import launch, launch_seeds, prepare
from simulations.methods import load_method


def run(method: str, options: list[str], out: Path, hosts: int = 1, workers: int = 1) -> dict[str, Any]:
    prepare(load_method("digits", method, options[1::2]), out)
    return again(out, hosts, workers)


def again(out: Path, hosts: int = 1, workers: int = 1) -> dict[str, Any]:
    """Run what is left in a folder and return what must not depend on how it was computed."""
    launch(out, How(Engine.local, hosts, workers, table=False))
    summary = json.loads((out / "summary.json").read_text())
    for key in ("timing", "peak_rss_bytes", "engine"):
        del summary[key]
    for key in ("messages", "envelope_bytes"):
        del summary["wire"][key]
    for facts in summary["device_classes"].values():
        del facts["latency_ms_p50"], facts["latency_fp32_ms_p50"]
    return {"summary": summary, "rounds": (out / "rounds.jsonl").read_text()}


@pytest.mark.parametrize("method", ["feddf", "fd"])
def test_hosts_and_workers_and_a_lost_round_change_nothing(
    method: str, small_options: list[str], tmp_path: Path
) -> None:
    reference = run(method, small_options, tmp_path / "one")
    assert run(method, small_options, tmp_path / "many", hosts=3, workers=2) == reference
    # Killed when the devices of the last round had answered, before its checkpoint was written.
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "round-00002")
    summary = tmp_path / "one" / "summary.json"
    before = json.loads(summary.read_text())["timing"]
    summary.unlink()
    assert again(tmp_path / "one") == reference
    assert json.loads(summary.read_text())["timing"]["wall_seconds"] > before["wall_seconds"]  # of both processes


def test_fedavgs_bytes_are_its_models_both_ways_as_the_products_table_reckons(
    small_options: list[str], tmp_path: Path
) -> None:
    summary = run("fedavg", small_options, tmp_path / "run")["summary"]
    for facts in summary["device_classes"].values():
        both = facts["uplink_bytes_per_round"] + facts["downlink_bytes_per_round"]
        assert 0 < both - facts["fedavg_bytes_per_round"] < 80
    assert summary["wire"]["proxy_bytes"] == 0
    assert summary["teacher"] is None


def test_fd_sends_a_vector_per_class_and_releases_nothing(small_options: list[str], tmp_path: Path) -> None:
    summary = run("fd", small_options, tmp_path / "run")["summary"]
    for facts in summary["device_classes"].values():
        assert facts["uplink_bytes_per_round"] <= 4 * 10 * 10 + 40
        assert facts["accuracy_released"] is None
        assert facts["accuracy_devices"] > 0
    assert not (tmp_path / "run" / "students").exists()


def test_what_a_baseline_releases_is_signed_with_the_keys_that_are_named(
    small_options: list[str], tmp_path: Path
) -> None:
    out, keys = tmp_path / "run", tmp_path / "keys"
    options = [*small_options[1::2], "rounds=1", "device_classes.mcu.budget.flash_bytes=5000"]
    launch_seeds(
        lambda seed: load_method("digits", "fedavg", [*options, f"seed={seed}"]),
        [3],
        out,
        How(Engine.local, hosts=1, workers=1, table=False, keys=keys),
    )
    classes = json.loads((out / "seed-3" / "summary.json").read_text())["device_classes"]
    trust = open_keys(keys).trust
    for name in ("pi5", "pi4", "zero2w"):
        assert classes[name]["refused"] == []
        manifest, _ = verify_folder(out / "seed-3" / "students" / name, trust, datetime.now(UTC))
        assert (manifest.device_class, manifest.version, manifest.parent.seed) == (name, 1, 3)
    assert "allowed 5 kB" in classes["mcu"]["refused"][0]
    assert {path.suffix for path in (out / "seed-3" / "students" / "mcu").iterdir()} == {".onnx"}
