"""When a watched release is kept: pure rules."""

from collections import Counter

import pytest

from client.updates.watch import Rules, drift, judged, verdict

RULES = Rules(predictions=100, seconds=60, drift=0.3, least=50)


def test_drift_is_0_for_equal_shares_and_1_for_labels_that_never_meet() -> None:
    assert drift({"a": 10, "b": 30}, {"a": 1, "b": 3}) == 0
    assert drift({"a": 10}, {"b": 3}) == 1
    assert drift({"a": 1, "b": 1}, {"a": 1}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("before", "now", "seconds", "found"),
    [
        ({}, {"a": 99}, 59, None),
        ({}, {"a": 100}, 0, ""),
        ({}, {}, 60, ""),
        ({"a": 200}, {"a": 80, "b": 20}, 0, ""),
        ({"a": 200}, {"a": 60, "b": 40}, 0, "drift by 0.40"),
        ({"a": 200}, {"b": 49}, 60, ""),  # too few to tell
        ({"a": 49}, {"b": 100}, 0, ""),  # likewise
    ],
)
def test_a_release_is_judged_when_there_is_enough_to_judge(
    before: dict[str, int], now: dict[str, int], seconds: float, found: str | None
) -> None:
    result = verdict(RULES, before, now, seconds)
    assert result == found if not found else found in (result or "")


def test_labels_are_remembered_only_where_there_are_enough() -> None:
    assert judged(Counter({"a": 49}), RULES) == {}
    assert judged(Counter({"a": 30, "b": 20}), RULES) == {"a": 30, "b": 20}
