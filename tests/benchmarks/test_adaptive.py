from benchmarks.adaptive import table, ways
from simulations.scenario import Scenario


def test_all_ways_take_the_same_steps_and_differ_in_the_loss_alone(small: Scenario) -> None:
    found = list(ways(small.students).values())
    assert len({(one.temperature, one.adaptation) for one in found}) == len(found) == 9
    assert {(one.distil, one.last) for one in found} == {(small.students.distil, small.students.last)}


def test_the_table_has_a_way_per_row_with_the_mean_over_classes_and_the_spread_over_seeds() -> None:
    found = table({"fixed": {"a": [0.9, 0.94], "b": [0.8, 0.8]}})
    assert found.splitlines()[-1] == "| fixed | 92.0 ± 2.8 | 80.0 ± 0.0 | 86.0 ± 1.4 |"
