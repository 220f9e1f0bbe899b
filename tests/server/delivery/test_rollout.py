"""Who gets which version: pure decisions."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstill.errors import ConfigError
from server.delivery.rollout import (
    Outcomes,
    Rollout,
    begun,
    grouped,
    kept_back,
    paused,
    promote,
    reason_to_pause,
    resumed,
    share_of,
    stage,
    taken_back,
    version_for,
    withdraw,
)

DEVICES = [f"device-{number}" for number in range(2000)]
STAGED = stage(begun([1, 2]), [1, 2], 10, 0, None)


def having(rollout: Rollout, version: int) -> set[str]:
    return {device for device in DEVICES if version_for(rollout, [1, 2], device, 1) == version}


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_percentage_is_about_that_many_devices(percent: float) -> None:
    found = len(having(stage(STAGED, [1, 2], percent, 0, None), 2)) / len(DEVICES)
    assert found == pytest.approx(percent / 100, abs=0.04)


def test_nobody_at_0_percent_and_all_at_100() -> None:
    assert having(stage(STAGED, [1, 2], 0, 0, None), 2) == set()
    assert having(stage(STAGED, [1, 2], 100, 0, None), 2) == set(DEVICES)


@given(st.text(max_size=40), st.integers(0, 2**31), st.floats(0, 100), st.floats(0, 100))
def test_a_device_that_has_a_version_keeps_it_when_the_percentage_grows(
    device: str, version: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    share = share_of(device, version)
    assert 0 <= share < 100
    assert not share < small or share < large


def test_the_share_is_the_same_for_ever() -> None:
    assert share_of("device-1", 7) == 80.74541794009646


def test_another_version_begins_with_other_devices() -> None:
    first = {device for device in DEVICES if share_of(device, 2) < 10}
    second = {device for device in DEVICES if share_of(device, 3) < 10}
    assert len(first & second) < 0.3 * len(first)


def test_without_staging_the_newest_goes_to_all_and_afterwards_a_new_one_waits() -> None:
    assert version_for(None, [1, 2], "a", 0) == 2
    assert version_for(None, [], "a", 0) == 0
    rollout = promote(begun([1, 2]), [1, 2], 0)
    assert version_for(rollout, [1, 2, 3], "a", 2) == 2
    assert kept_back(rollout, 3) == "not granted to any device"


def test_others_keep_getting_the_promoted_version() -> None:
    assert STAGED.current == 1
    assert having(STAGED, 1) | having(STAGED, 2) == set(DEVICES)
    assert having(STAGED, 1) & having(STAGED, 2) == set()


def test_a_group_gets_the_candidate_whatever_the_percentage() -> None:
    rollout = grouped(stage(STAGED, [1, 2], 0, 0, None), "canary", ("device-1", "device-7"), None)
    assert having(rollout, 2) == {"device-1", "device-7"}
    assert having(grouped(rollout, "canary", (), None), 2) == set()


def test_paused_nobody_else_gets_it_and_who_has_it_keeps_it() -> None:
    rollout = paused(STAGED, "why")
    assert having(rollout, 2) == set()
    assert version_for(rollout, [1, 2], "device-1", 2) == 2
    assert kept_back(rollout, 2) == taken_back(rollout, 2) == "paused (why)"
    assert having(resumed(rollout, 1.0), 2) == having(STAGED, 2)


def test_nobody_is_offered_an_older_version_than_the_one_that_runs_unless_it_was_withdrawn() -> None:
    rollout = stage(STAGED, [1, 2, 3], 0, 3, None)
    assert version_for(rollout, [1, 2, 3], "device-1", 2) == 2
    assert version_for(withdraw(rollout, 2), [1, 2, 3], "device-1", 2) == 1
    assert version_for(rollout, [1, 2, 3], "device-1", 9) == 1  # of another installation, or made up


def test_promoted_all_get_it_and_the_next_one_goes_back_to_it() -> None:
    rollout = promote(STAGED, [1, 2], 0)
    assert (rollout.current, rollout.candidate, rollout.percent) == (2, 0, 0)
    again = stage(rollout, [1, 2, 3], 50, 0, None)
    assert (again.current, again.candidate) == (2, 3)
    assert taken_back(rollout, 1) == ""


def test_withdrawn_nobody_gets_it_any_more() -> None:
    rollout = withdraw(STAGED, 0)
    assert having(rollout, 1) == set(DEVICES)
    assert version_for(rollout, [1, 2], "device-1", 2) == 1
    assert kept_back(rollout, 2) == taken_back(rollout, 2) == "withdrawn"
    with pytest.raises(ConfigError, match="version 2 was withdrawn"):
        stage(rollout, [1, 2], 10, 0, None)


def test_a_promoted_version_that_is_withdrawn_gives_way_to_the_one_before() -> None:
    rollout = withdraw(promote(STAGED, [1, 2], 0), 0)
    assert (rollout.current, rollout.withdrawn) == (1, (2,))
    assert withdraw(rollout, 0).current == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: stage(begun([]), [], 10, 0, None), "no version 0 in the store; there are none"),
        (lambda: stage(STAGED, [1, 2], 10, 9, None), "no version 9 in the store; there are 1, 2"),
        (lambda: promote(begun([]), [], 0), "no version 0"),
        (lambda: paused(begun([1]), "why"), "no rollout is going on"),
        (lambda: resumed(STAGED, 1.0), "not paused"),
        (lambda: withdraw(Rollout(), 0), "nothing to withdraw"),
        (lambda: grouped(STAGED, "a", ("../b",), None), "no name of a group or a device"),
    ],
)
def test_what_can_not_be_done_is_one_clear_line(change: Callable[[], Rollout], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        change()


def test_a_group_pauses_above_its_threshold_of_all_its_devices() -> None:
    rollout = grouped(STAGED, "canary", tuple("abcde"), 0.2)
    assert reason_to_pause(rollout, Outcomes(frozenset("a"), frozenset("a"))) == ""
    found = reason_to_pause(rollout, Outcomes(frozenset("ab"), frozenset("abc")))
    assert found == "group canary: 2 of 5 devices refused or rolled back version 2"


def test_all_devices_pause_above_the_general_threshold_and_one_early_failure_alone_does_not() -> None:
    failed = {f"f{number}" for number in range(11)}
    told = failed | {f"t{number}" for number in range(89)}
    assert reason_to_pause(STAGED, Outcomes(frozenset(["f0"]), frozenset(["f0"]))) == ""
    assert reason_to_pause(STAGED, Outcomes(frozenset(failed - {"f0"}), frozenset(told))) == ""
    found = reason_to_pause(STAGED, Outcomes(frozenset(failed), frozenset(told)))
    assert found == "everybody: 11 of 100 devices refused or rolled back version 2"
