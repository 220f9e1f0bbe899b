"""What candidates learn from: digits, with the true labels softened."""

import numpy as np
import pytest

from fedstill.settings import FitSettings
from fedstill.soft_labels import Floats, one_hot
from server.compress.learn import Material
from simulations.sources import load_digits

CLASSES, STEPS = 10, 112


@pytest.fixture(scope="module")
def material() -> Material:
    arrays = load_digits(None)
    labels: Floats = np.full((400, CLASSES), 0.01, dtype=np.float32)
    labels[np.arange(400), arrays.train_labels[:400]] = 0.91
    return Material(
        task="simulations.sources:DIGITS",
        seed=0,
        images=arrays.train_images[:400],
        labels=labels,
        server=(arrays.train_images[400:500], arrays.train_labels[400:500]),
        validation=(arrays.train_images[500:700], one_hot(arrays.train_labels[500:700], CLASSES)),
        calibration=arrays.train_images[:50],
        how=FitSettings(epochs=0, min_steps=STEPS, batch=32, learning_rate=0.05).of(400),
    )
