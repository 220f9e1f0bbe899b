import numpy as np
import pytest
import torch

from fedstill.settings import AdaptationSettings, FitSettings, StudentSettings, TemperatureSettings
from server.students import distil, initial
from simulations.sources import load_digits

TASK = "simulations.sources:DIGITS"
IMAGES = load_digits(None).train_images[:100]
LABELS = np.random.default_rng(0).dirichlet(np.ones(10), 100).astype(np.float32)


def settings(**temperature: float | str) -> StudentSettings:
    return StudentSettings(
        distil=FitSettings(epochs=1, learning_rate=0.05), temperature=TemperatureSettings.model_validate(temperature)
    )


def distilled(wanted: StudentSettings, round_number: int) -> dict[str, torch.Tensor]:
    state = initial(TASK, "tiny-conv-s", seed=0)
    return distil(TASK, "tiny-conv-s", wanted, state, IMAGES, LABELS, round_number, 5, seed=0)


def test_a_student_and_its_twin_begin_equal() -> None:
    one, twin = initial(TASK, "tiny-conv-s", 3), initial(TASK, "tiny-conv-s", 3)
    assert all(torch.equal(one[name], twin[name]) for name in one)


def test_the_temperature_follows_its_schedule_over_the_rounds() -> None:
    linear = settings(schedule="linear", start=4.0, end=1.0)
    last, constant = distilled(linear, 5), distilled(settings(start=1.0), 5)
    first = distilled(settings(start=1.0), 1)
    assert all(torch.equal(last[name], constant[name]) for name in last)
    assert not torch.equal(distilled(linear, 1)["head.weight"], first["head.weight"])


@pytest.mark.parametrize("method", ["standardized", "weighted", "curriculum"])
def test_a_way_that_follows_the_student_is_another_one_and_repeats(method: str) -> None:
    adaptation = AdaptationSettings.model_validate({"method": method})
    wanted = settings(start=2.0).model_copy(update={"adaptation": adaptation})
    once, again, plain = distilled(wanted, 1), distilled(wanted, 1), distilled(settings(start=2.0), 1)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["head.weight"], plain["head.weight"])
