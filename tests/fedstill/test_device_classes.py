import pytest
from pydantic import ValidationError

from fedstill.device_classes import BUDGETS, Budget, budget_of
from simulations.scenario import dump, load_scenario


def test_every_built_in_class_limits_flash_memory_and_latency() -> None:
    assert set(BUDGETS) == {"jetson", "pi5", "pi4", "zero2w", "mcu"}
    limits = {"flash_bytes", "ram_bytes", "ram", "latency_ms"}
    assert all(limits <= set(budget.model_dump(exclude_none=True)) for budget in BUDGETS.values())
    assert [name for name, budget in BUDGETS.items() if budget.parameters] == ["mcu"]


def test_a_scenario_changes_only_what_it_names() -> None:
    changed = budget_of("mcu", Budget(flash_bytes=10_000))
    assert changed == BUDGETS["mcu"].model_copy(update={"flash_bytes": 10_000})
    assert budget_of("fridge") == Budget()
    assert budget_of("fridge", Budget(latency_ms=3)).latency_ms == 3


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Budget(flash_bytes=0)


def test_a_budget_of_a_scenario_survives_its_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    scenario = load_scenario("digits", ["device_classes.mcu.budget.flash_bytes=9000"])
    path = tmp_path_factory.mktemp("scenario") / "own.toml"
    path.write_text(dump(scenario))
    assert load_scenario(str(path)) == scenario
    assert dump(load_scenario("digits")).count("budget") == 0
