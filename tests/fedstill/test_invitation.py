import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstill.errors import ConfigError
from fedstill.invitation import PREFIX, Invitation

GOOD = Invitation("fl.example.org:8001", "ab" * 32, "secret")


def test_a_token_is_one_word_and_comes_back() -> None:
    assert " " not in GOOD.encode()
    assert Invitation.decode(f"  {GOOD.encode()}\n") == GOOD
    assert GOOD.place == ("fl.example.org", 8001)
    assert Invitation("[::1]:8001", "ab" * 32, "s").place == ("::1", 8001)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_what_is_no_token_is_refused_in_a_word(text: str) -> None:
    for word in (text, f"fedstill1-{text}"):
        with pytest.raises(ConfigError, match="this is no token"):
            Invitation.decode(word)


def test_a_part_of_a_token_is_refused() -> None:
    token = GOOD.encode()
    for length in range(len(token)):
        with pytest.raises(ConfigError, match="copy the whole line"):
            Invitation.decode(token[:length])


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":8001",
        "fl.example.org",
        ".example.org:8001",
        "fl\n.org:8001",
        "\ud800.org:8001",
        "a:0",
        "a:65536",
        "::1:8001",
    ],
)
def test_a_token_whose_address_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="this is no token"):
        Invitation.decode(Invitation(address, "ab" * 32, "secret").encode())


def test_a_token_that_is_nested_without_end_is_refused() -> None:
    for content in ("[" * 1400, json.dumps([["a:1"], "ab" * 32, "secret"])):
        with pytest.raises(ConfigError, match="this is no token"):
            Invitation.decode(PREFIX + base64.urlsafe_b64encode(content.encode()).decode().rstrip("="))
