import zlib

import numpy as np

from fedstill.text import CODES, encode


def codes(sentence: str, length: int = 6) -> list[int]:
    high, low = encode([sentence], length)[0, :, 0].astype(int)
    return [int(code) for code in 256 * high + low]


def test_words_become_codes_in_two_bytes_and_places_without_a_word_are_zero() -> None:
    found = codes("A fine film")
    assert found[:3] == [1 + zlib.crc32(word) % (CODES - 1) for word in (b"a", b"fine", b"film")]
    assert found[3:] == [0, 0, 0]
    assert encode(["a", "b c"], 4).shape == (2, 2, 1, 4)
    assert encode(["a"], 4).dtype == np.uint8


def test_no_word_is_coded_as_none_or_beyond_the_codes() -> None:
    rng = np.random.default_rng(0)
    found = codes(" ".join("".join(rng.choice(list("abcdefgh"), 6)) for _ in range(2000)), 2000)
    assert min(found) > 0
    assert max(found) < CODES


def test_long_sentences_are_cut_and_empty_ones_are_all_zero() -> None:
    assert codes("a b c d e f g h") == codes("a b c d e f")
    assert codes(" \n") == [0] * 6
    assert encode([], 6).shape == (0, 2, 1, 6)


def test_any_script_and_spelling_of_a_word_has_a_code() -> None:
    assert codes("ÜBER 映画") == codes("über 映画")
