import pytest
import torch

from fedstill.errors import ConfigError
from fedstill.learning import Folds, build, parameters
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


@pytest.mark.parametrize("name", [*ARCHITECTURES, "pooled-separable[3,5/7]"])
def test_with_batch_norm_folded_a_network_answers_as_it_is_and_as_it_becomes(name: str) -> None:
    task = Task("t", tuple("abcdefg"), (3, 16, 16), no_data)
    model = build(architecture(name), task, seed=0)
    assert isinstance(model, Folds)
    images = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(3):  # scales, shifts and running statistics are no longer those of a fresh network
            optimizer.zero_grad()
            model.train()(images).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            plain = model.eval()(images)
            assert torch.allclose(model.folded()(images), plain, atol=1e-5 * float(plain.abs().max()))


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
