import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fedstill.errors import ConfigError, RunFolderError
from simulations.methods import load_method
from simulations.run_folder import SEEDS_PLAN
from simulations.seeds import SeedsPlan, combine, resumed


def summary(seed: int, **changes: Any) -> dict[str, Any]:
    found = {
        "devices": 2,
        "student": "digit-conv-m",
        "accuracy_local_only": 0.5,
        "accuracy_teacher_only": 0.6,
        "accuracy_released": 0.8,
        "uplink_bytes_per_round": 10.0,
        "downlink_bytes_per_round": 10.0,
        "fedavg_bytes_per_round": 200,
        **changes,
    }
    return {
        "scenario": "digits",
        "seed": seed,
        "rounds": 8,
        "commit": None,
        "central": {"accuracy": 1.0},
        "wire": {"uplink_bytes": 100, "downlink_bytes": 60},
        "device_classes": {"pi5": found},
    }


def pi5(part: Any) -> Any:
    return part["device_classes"]["pi5"]


def test_mean_and_sample_standard_deviation_stand_under_the_keys_of_a_summary() -> None:
    both = combine([summary(4, accuracy_released=0.7), summary(2, accuracy_released=0.9)])
    assert both["scenario"] == "digits"
    assert both["seeds"] == [4, 2]
    assert pi5(both["mean"])["accuracy_released"] == pytest.approx(0.8)
    assert pi5(both["std"])["accuracy_released"] == pytest.approx(0.2 / 2**0.5)
    assert pi5(both["std"])["devices"] == 0.0
    assert pi5(both["mean"])["devices"] == 2
    assert "seed" not in both["mean"]
    assert "seed" not in both["std"]


def test_a_single_seed_has_no_spread() -> None:
    one = combine([summary(3)])
    assert pi5(one["mean"]) == pi5(summary(3))
    assert set(pi5(one["std"]).values()) == {0.0}


def test_a_figure_that_is_null_in_one_seed_is_null_in_mean_and_std() -> None:
    both = combine([summary(0), summary(1, accuracy_local_only=None)])
    assert pi5(both["mean"])["accuracy_local_only"] is None
    assert pi5(both["std"])["accuracy_local_only"] is None


def test_text_and_truth_values_stay_in_the_mean_only_where_all_seeds_agree() -> None:
    both = combine([summary(0, kept=True, note="a"), summary(1, kept=True, note="b")])
    assert pi5(both["mean"])["student"] == "digit-conv-m"
    assert pi5(both["mean"])["kept"] is True
    assert "note" not in pi5(both["mean"])
    assert {"student", "kept", "note"}.isdisjoint(pi5(both["std"]))


def test_gain_is_taken_per_seed_before_the_mean() -> None:
    # The better rival differs between the seeds: from the means alone the gain would look like 0.3, not 0.2.
    rivals = ({"accuracy_local_only": 0.6, "accuracy_teacher_only": 0.4}, {"accuracy_local_only": 0.4})
    both = combine([summary(seed, **own) for seed, own in enumerate(rivals)])
    assert both["derived"]["mean"]["federation_gain"]["pi5"] == pytest.approx(0.2)
    assert both["derived"]["std"]["federation_gain"]["pi5"] == pytest.approx(0.0)
    assert both["derived"]["mean"]["gap_closed"] == pytest.approx((0.4 / 0.6 + 0.5) / 2)
    assert both["derived"]["mean"]["fedavg_ratio"]["pi5"] == 10


def test_gap_closed_is_null_where_the_student_starts_above_the_ceiling() -> None:
    content = summary(0, accuracy_teacher_only=1.0)
    assert combine([content])["derived"]["mean"]["gap_closed"] is None


def test_result_is_json_and_inputs_stay_as_they_were() -> None:
    inputs = [summary(0), summary(1, accuracy_released=0.9)]
    before = copy.deepcopy(inputs)
    json.dumps(combine(inputs), allow_nan=False)
    assert inputs == before


@pytest.mark.parametrize("change", ["scenario", "keys", "none"])
def test_summaries_that_do_not_belong_together_are_refused(change: str) -> None:
    other = summary(1)
    if change == "scenario":
        other["scenario"] = "mnist"
    elif change == "keys":
        other["device_classes"]["mcu"] = other["device_classes"].pop("pi5")
    with pytest.raises(ValueError, match="summaries"):
        combine([] if change == "none" else [summary(0), other])


@pytest.mark.parametrize(("scenario", "method"), [("digits", "fedstill"), ("digits", "fedavg"), ("mnist", "fd")])
def test_a_seed_that_is_added_later_gets_the_configuration_that_it_would_have_had_at_the_start(
    scenario: str, method: str, tmp_path: Path
) -> None:
    changes = ["rounds=1", "exchange.per_round=30", "fleet=reference"] if method == "fedstill" else ["rounds=1"]
    SeedsPlan(seeds=[4], scenario=load_method(scenario, method, [*changes, "seed=4"])).write(tmp_path)
    plan = resumed(tmp_path, [7, 4])
    assert plan.seeds == [4, 7]
    for seed in plan.seeds:
        assert plan.load(seed) == load_method(scenario, method, [*changes, f"seed={seed}"])


def test_a_folder_without_a_plan_and_a_plan_that_is_none_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=rf"no seeds to resume here \({SEEDS_PLAN} is missing\)$"):
        resumed(tmp_path, [0])
    (tmp_path / SEEDS_PLAN).write_text("seeds = [0]")
    with pytest.raises(ConfigError, match=f"{SEEDS_PLAN}: scenario: Field required") as caught:
        resumed(tmp_path, [0])
    assert "\n" not in str(caught.value)
