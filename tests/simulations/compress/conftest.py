"""A finished run made without training: the labels of its devices are the true ones, softened."""

from pathlib import Path

import numpy as np
import pytest

from fedstill.cache import LabelCache
from fedstill.files import write_json
from fedstill.soft_labels import Floats
from fedstill.stored import store_cache
from fedstill.tasks import load_task
from server.checkpoints import Checkpoints
from server.release.home import default_folder
from simulations.launch import prepare
from simulations.run_folder import SUMMARY
from simulations.scenario import load_scenario


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of `digits` with 200 proxy samples."""
    out = tmp_path_factory.mktemp("finished") / "run"
    scenario = load_scenario("digits", ["data.proxy_samples=200", "devices=4", "rounds=2"])
    prepare(scenario, out, default_folder())
    task = load_task(scenario.task)
    arrays = task.load(None)
    classes = {image.tobytes(): label for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)}
    truth = [classes[image.tobytes()] for image in np.load(out / "assets" / "proxy-images.npy")]
    labels: Floats = np.full((len(truth), task.classes), 0.01, dtype=np.float32)
    labels[np.arange(len(truth)), truth] = 0.91
    cache = LabelCache.empty(len(truth), task.classes).filled(np.arange(len(truth), dtype=np.int64), labels, 3)
    Checkpoints(out / "checkpoints").save(2, {"round": 2, **store_cache(cache)})
    write_json(out / SUMMARY, {})
    return out
