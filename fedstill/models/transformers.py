"""Small transformer encoders for text as `fedstill.text` codes it (Vaswani et al. 2017, arXiv 1706.03762).

Layers normalize first, which trains without a warm-up; the words' mean goes to a linear head.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstill.tasks import Task
from fedstill.text import CODES

HIDDEN = -1e4  # score of a place without a word: finite in half precision


class Layer(nn.Module):
    """Self-attention and a two-layer network, each added to what it read.

    Args:
        width: d_model, features of a word.
        heads: h, of the attention.
        inner: d_ff, features between the two layers.
    """

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, words: Tensor, hidden: Tensor) -> Tensor:
        """Return new features of `words` `[batch, places, width]`; `hidden`, of scores, is `[batch, 1, 1, places]`."""
        read = self.before(words)
        query, key, value = (self._by_head(part(read)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5 + hidden  # [batch, heads, places, places]
        found = (F.softmax(scores, dim=3) @ value).transpose(1, 2).flatten(2)
        words = words + self.out(found)
        grown: Tensor = words + self.narrow(F.relu(self.widen(self.between(words))))
        return grown

    def _by_head(self, features: Tensor) -> Tensor:
        """Return `[batch, heads, places, width / heads]` of `[batch, places, width]`."""
        batch, places, width = features.shape
        return features.reshape(batch, places, self.heads, width // self.heads).transpose(1, 2)


class TextTransformer(nn.Module):
    """Embeddings of words and places, layers, the mean over the words, a linear head."""

    def __init__(self, task: Task, width: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(CODES, width)
        self.places = nn.Parameter(torch.zeros(1, task.input_shape[2], width))
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.places, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, task.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of coded text `[batch, 2, 1, places]`, bytes divided by 255."""
        pairs = torch.round(images[:, :, 0] * 255).long()
        codes = (256 * pairs[:, 0] + pairs[:, 1]).clamp(0, CODES - 1)  # [batch, places]
        there = (codes > 0).to(images.dtype)
        hidden = ((1 - there) * HIDDEN)[:, None, None]
        words = self.words(codes) + self.places
        for layer in self.layers:
            words = layer(words, hidden)
        count = there.sum(dim=1, keepdim=True).clamp_min(1)
        mean = (self.norm(words) * there[:, :, None]).sum(dim=1) / count
        logits: Tensor = self.head(mean)
        return logits


def _transformer(width: int, heads: int, inner: int, layers: int = 4) -> Callable[[Task], nn.Module]:
    return partial(TextTransformer, width=width, heads=heads, inner=inner, layers=layers)


TRANSFORMERS: dict[str, Callable[[Task], nn.Module]] = {
    "text-transformer-l": _transformer(192, 6, 768),
    "text-transformer-m": _transformer(128, 4, 512),
    "text-transformer-s": _transformer(64, 4, 256),
}
