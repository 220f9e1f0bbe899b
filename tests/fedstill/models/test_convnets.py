import pytest
import torch

from fedstill.errors import ConfigError
from fedstill.learning import build, parameters
from fedstill.models import architecture
from fedstill.models.convnets import ARCHITECTURES
from fedstill.tasks import Arrays, Task


def no_data(folder: object) -> Arrays:
    raise AssertionError("not needed")


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_returns_logits_for_every_built_in_image_size(
    name: str, shape: tuple[int, int, int]
) -> None:
    task = Task("t", tuple("abcdefg"), shape, no_data)
    model = build(ARCHITECTURES[name], task, seed=0).eval()
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


def test_microcontroller_students_have_at_most_86_000_parameters() -> None:
    for name, shape in (
        ("tiny-separable-s", (1, 8, 8)),
        ("strided-separable-m", (1, 28, 28)),
        ("pooled-separable-m", (3, 32, 32)),
    ):
        task = Task("t", tuple("0123456789"), shape, no_data)
        assert parameters(build(architecture(name), task, seed=0)) <= 86_000


def test_an_unknown_architecture_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tiny-conv-s'"):
        architecture("tiny-conv-")
