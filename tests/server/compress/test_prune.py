from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstill.errors import ExportError
from fedstill.learning import build, restored, state_of
from fedstill.models import architecture
from fedstill.models.shapes import shape_of
from fedstill.tasks import load_task
from server.compress.prune import Importance, flops, prune

TASK = load_task("simulations.sources:DIGITS")
IMAGES = torch.randn(32, *TASK.input_shape, generator=torch.Generator().manual_seed(0))
STUDENTS = ["tiny-conv-m", "tiny-separable-s", "strided-separable-m"]


def loss(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(IMAGES), torch.arange(32) % TASK.classes)


@pytest.mark.parametrize("importance", get_args(Importance))
@pytest.mark.parametrize("student", STUDENTS)
def test_a_pruned_network_holds_its_limit_and_is_rebuilt_from_name_and_state(
    student: str, importance: Importance
) -> None:
    shape = shape_of(student)
    assert shape is not None
    model = build(shape.build, TASK, seed=1)
    before = state_of(model)
    limit = flops(model, TASK) / 2
    found, state = prune(shape, model.state_dict(), TASK, limit, loss, importance)
    again = restored(architecture(str(found)), TASK, state)
    assert 0.3 * limit < flops(again, TASK) <= limit
    assert sum(map(sum, found.stages)) < sum(map(sum, shape.stages))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("importance", get_args(Importance))
def test_channels_that_do_nothing_go_first_and_the_answers_stay(importance: Importance) -> None:
    shape = shape_of("tiny-conv-m")
    assert shape is not None
    state = state_of(build(shape.build, TASK, seed=2))
    for block in (0, 1, 3, 4):
        half = len(state[f"features.{block}.0.weight"]) // 2
        for key in (f"features.{block}.0.weight", f"features.{block}.1.weight", f"features.{block}.1.bias"):
            state[key][half:] = 0
    model = restored(shape.build, TASK, state)
    found, left = prune(shape, state, TASK, flops(model, TASK) * 0.6, loss, importance)
    assert found != shape
    with torch.no_grad():
        answers = restored(found.build, TASK, left).eval()(IMAGES)
        torch.testing.assert_close(answers, model.eval()(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_limit_that_no_network_holds_is_refused() -> None:
    shape = shape_of("tiny-separable-s")
    assert shape is not None
    state = state_of(build(shape.build, TASK, seed=0))
    with pytest.raises(ExportError, match="can't be pruned to 10 operations"):
        prune(shape, state, TASK, 10, loss, "l1")
