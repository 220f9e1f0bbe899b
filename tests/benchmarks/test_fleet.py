from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fleet import Measured, on_gpu, server_round
from benchmarks.fleet_run import TASK, scenario_of
from benchmarks.rivals.flower_ray import data, work
from fedstill.cache import LabelCache
from fedstill.exchange import RoundTask
from fedstill.learning import build, predict, state_of, teach
from fedstill.models import architecture
from protos import soft_labels_pb2 as pb
from simulations.host import make_device
from simulations.shelf import open_shelf


def test_the_first_round_counts_for_none_but_the_time_to_its_end() -> None:
    found = Measured(wall=[9.0, 10.0, 12.0], cpu=[7.0, 8.0, 11.0], peak=5).figures(devices=200)
    assert found == {"devices_per_core_second": 100.0, "peak_memory": 5.0, "first_round": 9.0}


def test_on_a_gpu_the_ratio_is_of_the_time_after_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {"ours": [9.0, 10.0, 11.0], "flower": [5.0, 15.0, 25.0]}
    for name, wall in sides.items():
        monkeypatch.setattr(f"benchmarks.fleet.{name}", lambda *_, w=wall, **__: Measured(w, [], 0))
    assert on_gpu("mlp", 200, 3, 10) == {"devices_per_second": 10.0, "ours": 200.0, "flower": 20.0}


def test_every_part_of_a_round_on_the_server_is_in_its_time() -> None:
    found = server_round(devices=5, rows=20)
    assert found.pop("processor_seconds") > 0
    assert found.pop("seconds") == pytest.approx(sum(found.values()))
    assert set(found) == {"encode", "decode", "consensus", "checkpoint"}


def test_our_devices_do_the_rivals_work(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, "mlp", devices=3, rounds=1, rows=40, changes=[])
    shelf = open_shelf(tmp_path / "assets", scenario)
    device = make_device(scenario, shelf, 0, tmp_path)
    (lesson,) = device._lessons(_first_round(), first=True)
    assert (lesson.how.steps, lesson.how.batch, len(lesson.images)) == (3, data.BATCH, 60)
    model, twin = (build(architecture(device.student), TASK, seed=0) for _ in range(2))
    teach(model, lesson, TASK)
    work.learn(twin, np.array(lesson.images), lesson.targets.numpy(), lesson.seed)
    for name, value in state_of(model).items():
        assert torch.allclose(value, twin.state_dict()[name], atol=1e-5)
    expected = work.probabilities(twin, np.array(shelf.proxy)).astype(np.float32)
    assert np.allclose(predict(model, shelf.proxy, TASK), expected, atol=2e-3)


def _first_round() -> RoundTask:
    nothing = LabelCache.empty(40, data.CLASSES)
    return RoundTask(1, 1, nothing, np.arange(40), pb.Samples())
