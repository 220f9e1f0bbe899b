"""The scenario `sst2` as a user starts it, on a few made-up reviews."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import onnx
import pytest

from fedstill.release.manifest import INT8_FILE, MANIFEST, read_manifest
from fedstill.release.selftest import self_test
from server.release.formats import weight_kinds

pytestmark = pytest.mark.deploy

SMALL = (
    "rounds=1",
    "devices=2",
    "data.server_samples=60",
    "data.guard_samples=20",
    "data.proxy_samples=60",
    "data.private_samples=80",
    "partition.rule=iid",
    "exchange.per_round=30",
    "teacher.architecture=text-transformer-s",
    "students.calibration_samples=20",
    "executor=sequential",
)
WORDS = {0: ("dull", "bad", "poor", "flat"), 1: ("fine", "good", "warm", "great")}


def write_reviews(folder: Path) -> None:
    rng = np.random.default_rng(0)
    target = folder / "stanfordnlp/sst2/data"
    target.mkdir(parents=True)
    for split, count in (("train", 300), ("validation", 60)):
        labels = rng.integers(0, 2, count).tolist()
        rows = [" ".join(["a", *rng.choice(WORDS[label], rng.integers(1, 5)), "film"]) for label in labels]
        data = datasets.Dataset.from_dict({"sentence": rows, "label": labels})
        data.to_parquet(str(target / f"{split}-00000-of-00001.parquet"))


def test_a_transformer_is_released_in_dynamic_int8_with_a_self_test_that_holds(tmp_path: Path) -> None:
    write_reviews(tmp_path / "data")
    fits = [f"{fit}.epochs=1" for fit in ("teacher.initial", "device.first_digest", "device.revisit", "central.fit")]
    only = 'device_classes={zero2w={student="text-transformer-s",format="dynamic-int8"}}'
    command = [str(Path(sys.executable).parent / "fedstill"), "simulate", "sst2", "--out", str(tmp_path / "run")]
    command += ["--data-dir", str(tmp_path / "data"), "--workers", "1"]
    command += [part for change in (*SMALL, *fits, only) for part in ("--set", change)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["device_classes"]["zero2w"]
    assert (found["refused"], found["format"], found["robustness"]) == ([], "dynamic-int8", {})
    assert found["onnx_bytes"] < 0.3 * found["onnx_fp32_bytes"]
    folder = tmp_path / "run" / "students" / "zero2w"
    manifest = read_manifest((folder / MANIFEST).read_bytes())
    assert manifest.self_test.expected[INT8_FILE].tolerance == 0.01
    self_test(folder, manifest, INT8_FILE)
    assert set(weight_kinds(onnx.load(folder / INT8_FILE))) == {"int8"}
