import pickle

import pytest

from fedstill.failures import place_of, stage, told


def fail(message: str, *stages: str) -> None:
    """Fail in nested stages, the innermost one first; that one is at its seventh step."""
    if not stages:
        raise ValueError(message)
    *inner, outer = stages
    with stage(outer, None if inner else lambda: 7):
        fail(message, *inner)


def raised(*stages: str) -> Exception:
    with pytest.raises(ValueError, match="wrong") as caught:
        fail("wrong\nthroughout", *stages)
    return caught.value


def test_the_innermost_stage_and_its_step_are_told_in_one_line() -> None:
    assert told(raised("digest", "round")) == "digest, batch 7: ValueError: wrong throughout"


def test_without_a_stage_kind_and_message_are_told() -> None:
    assert told(KeyError("x")) == "KeyError: 'x'"
    assert told(RuntimeError()) == "RuntimeError"


def test_the_stage_survives_the_way_out_of_a_worker() -> None:
    assert place_of(pickle.loads(pickle.dumps(raised("digest", "round")))) == "digest, batch 7"
