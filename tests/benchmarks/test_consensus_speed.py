from benchmarks.consensus_speed import measure, votes_of
from fedstill.consensus import RULES


def test_every_rule_is_measured() -> None:
    rows = measure(votes_of(3, 20, 4, present=0.8), repeats=1)
    assert {row["rule"].partition(",")[0] for row in rows} == set(RULES)
    assert all(row["seconds"] > 0 and row["numpy_seconds"] > 0 for row in rows)
