from dataclasses import replace

import numpy as np
import pytest
import torch

from fedstill.learning import build, logits, normalize
from fedstill.models import architecture
from fedstill.models.transformers import TRANSFORMERS
from fedstill.text import encode
from simulations.sources import SST2


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_every_transformer_returns_logits_even_of_nothing(name: str) -> None:
    found = logits(build(architecture(name), SST2, seed=0), encode(["", "a film", "one more"], 48), SST2)
    assert found.shape == (3, 2)
    assert found.isfinite().all()


def test_what_is_behind_the_last_word_does_not_count() -> None:
    model = build(architecture("text-transformer-s"), SST2, seed=0).eval()
    long = normalize(encode(["a film of note"], 48), SST2)
    short = replace(SST2, input_shape=(2, 1, 4))
    cut = build(architecture("text-transformer-s"), short, seed=0).eval()
    state = {name: value[:, :4] if name == "places" else value for name, value in model.state_dict().items()}
    cut.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(model(long), cut(long[..., :4]), atol=1e-5)


def test_the_order_of_words_counts() -> None:
    model = build(architecture("text-transformer-s"), SST2, seed=0)
    torch.nn.init.normal_(model.places, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    one, other = logits(model, encode(["good not bad", "bad not good"], 48), SST2).numpy()
    assert not np.allclose(one, other, atol=1e-4)
