"""Inputs are kept for the next student, and made anew when they are others or were written into."""

import pytest
import torch
from torch import Tensor

from fedstill import inputs
from fedstill.inputs import kept_blocks


class Maker:
    """Makes the same blocks each time, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> list[Tensor]:
        self.made += 1
        return [torch.arange(4.0), torch.arange(2.0)]


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_last", None)


def test_the_same_inputs_are_made_once() -> None:
    make = Maker()
    first = kept_blocks("proxy", make)
    assert kept_blocks("proxy", make) is first
    assert make.made == 1


def test_other_inputs_take_their_place() -> None:
    make = Maker()
    kept_blocks("proxy", make)
    kept_blocks("another proxy", make)
    kept_blocks("proxy", make)
    assert make.made == 3


def test_inputs_that_a_model_wrote_into_are_made_anew() -> None:
    make = Maker()
    with torch.no_grad():
        torch.relu_(kept_blocks("proxy", make)[1].sub_(1))
    assert torch.equal(kept_blocks("proxy", make)[1], torch.arange(2.0))
    assert make.made == 2


def test_large_inputs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LARGEST", 23)
    make = Maker()
    kept_blocks("proxy", make)
    kept_blocks("proxy", make)
    assert make.made == 2
