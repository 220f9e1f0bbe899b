"""Text as samples that any part of the product carries: words hashed to 16-bit codes, two bytes each.

Hashing needs no vocabulary, so there is none to build, to ship or to keep in step between server and devices, and no
network; words that share a code are told apart by their neighbours alone (the hashing trick, Weinberger et al. 2009,
arXiv 0902.2206). A sentence is a "picture" of two channels, high and low bytes, of one row and a column per word; a
task with mean 0 and standard deviation 1 hands a model these bytes divided by 255.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from fedstill.tasks import Images

CODES = 8192
"""Codes that a word may have; 0 is no word."""


def encode(sentences: Sequence[str], length: int) -> Images:
    """Return sentences as codes of their lower-case words, parted at white space `[sentences, 2, 1, length]`.

    Args:
        sentences: any text.
        length: words kept of each; shorter ones end in zeros.
    """
    codes = np.zeros((len(sentences), length), dtype=">u2")
    for row, sentence in enumerate(sentences):
        words = sentence.lower().split()[:length]
        codes[row, : len(words)] = [1 + zlib.crc32(word.encode()) % (CODES - 1) for word in words]
    return np.ascontiguousarray(codes.view(np.uint8).reshape(len(sentences), 1, length, 2).transpose(0, 3, 1, 2))
