import numpy as np
import pytest

from fedstill.learning import build, logits, parameters
from fedstill.models import architecture
from simulations.sources import MNIST


@pytest.mark.parametrize(("name", "count"), [("fedgen-mnist", 26_434), ("selective-fd-mnist", 21_840)])
def test_a_published_network_has_as_many_parameters_as_its_paper_says(name: str, count: int) -> None:
    model = build(architecture(name), MNIST, seed=0)
    assert parameters(model) == count
    assert logits(model, np.zeros((3, 1, 28, 28), dtype=np.uint8), MNIST).shape == (3, 10)
