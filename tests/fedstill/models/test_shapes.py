import pytest
import torch

from fedstill.errors import ConfigError
from fedstill.learning import build, state_of
from fedstill.models import ARCHITECTURES, architecture
from fedstill.models.shapes import Shape, parse_shape, shape_of
from fedstill.tasks import load_task

TASK = load_task("simulations.sources:DIGITS")
BUILTIN = [name for name in ARCHITECTURES if shape_of(name) is not None]


@pytest.mark.parametrize("name", BUILTIN)
def test_the_name_of_a_built_in_networks_shape_builds_the_same_network(name: str) -> None:
    spelled = str(shape_of(name))
    assert spelled not in ARCHITECTURES
    if name.count("-") == 2 and name.startswith("pooled"):
        return  # too many stages for these small images
    known, again = (state_of(build(architecture(one), TASK, seed=3)) for one in (name, spelled))
    assert list(known) == list(again)
    assert all(torch.equal(known[key], again[key]) for key in known)


def test_all_networks_of_a_family_have_a_shape_and_others_have_none() -> None:
    assert len(BUILTIN) >= 15
    assert shape_of("fedgen-mnist") is None
    assert parse_shape("tiny-conv-m") is None


def test_shapes_grow_and_shrink_in_width_and_depth() -> None:
    shape = Shape("pooled-conv", ((12,), (24, 24)))
    assert shape.scaled(1.0) is shape
    assert str(shape.scaled(2.0)) == "pooled-conv[24/48,48]"
    assert str(shape.scaled(0.01)) == "pooled-conv[4/4,4]"
    assert str(shape.deepened(2)) == "pooled-conv[12/24,24,24,24]"
    assert str(shape.deepened(-1)) == "pooled-conv[12/24]"
    assert str(shape.deepened(-9)) == "pooled-conv[12/24]"


def test_no_shape_grows_beyond_what_a_name_may_spell() -> None:
    largest = Shape("pooled-conv", ((4000,), (8,) * 62)).scaled(2.0).deepened(5)
    assert shape_of(str(largest)) == largest
    assert (largest.stages[0], len(largest.stages[1])) == ((4096,), 63)


@pytest.mark.parametrize(
    "name", ["pooled-conv[]", "pooled-conv[,]", "pooled-conv[8/]", "pooled-conv[0]", "pooled-conv[9999]", "odd-conv[8]"]
)
def test_a_name_that_spells_no_network_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="architecture"):
        architecture(name)


def test_a_name_with_very_many_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 64 blocks"):
        architecture(f"pooled-conv[{','.join(['4'] * 65)}]")


def test_a_name_whose_network_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="150,994,944 weights; at most 50,000,000"):
        architecture("pooled-conv[4096,4096]")
