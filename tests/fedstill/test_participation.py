from fedstill.participation import participants


def test_a_round_asks_as_many_devices_as_it_should_and_rounds_differ() -> None:
    rounds = [participants(3, number, range(20), 10) for number in range(1, 9)]
    assert all(len(set(asked)) == 10 and asked == sorted(asked) for asked in rounds)
    assert len({tuple(asked) for asked in rounds}) == 8


def test_the_choice_follows_from_seed_and_round_not_from_the_order_of_devices() -> None:
    assert participants(3, 1, range(20), 5) == participants(3, 1, reversed(range(20)), 5)
    assert participants(3, 1, range(20), 5) != participants(4, 1, range(20), 5)


def test_a_device_that_is_gone_changes_the_choice_by_one() -> None:
    asked = participants(3, 1, range(20), 10)
    without = participants(3, 1, [device for device in range(20) if device != asked[0]], 10)
    assert len(set(asked) - set(without)) == 1


def test_over_many_rounds_every_device_is_asked_about_equally_often() -> None:
    counts = [0] * 20
    for number in range(1, 401):
        for device in participants(0, number, range(20), 10):
            counts[device] += 1
    assert min(counts) > 150
    assert max(counts) < 250


def test_fewer_devices_than_wanted_are_all_asked() -> None:
    assert participants(0, 1, [7, 2], 10) == [2, 7]
