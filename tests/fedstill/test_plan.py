import json

import pytest

from fedstill.errors import ConfigError, DataError
from fedstill.plan import MAX_JSON, ClassPlan, DevicePlan, TaskPlan
from fedstill.settings import DeviceSettings, FitSettings
from simulations.sources import CIFAR10

FIT = FitSettings(epochs=1, learning_rate=0.1)
PLAN = DevicePlan(
    seed=3,
    task=TaskPlan.of(CIFAR10),
    proxy_digest="0123456789abcdef",
    proxy_size=40,
    device=DeviceSettings(first_digest=FIT, digest=FIT, revisit=FIT),
    classes={"pi4": ClassPlan(student="tiny-conv-s", uplink="float16")},
)


def test_a_plan_comes_back_as_it_was_sent() -> None:
    assert DevicePlan.read(PLAN.model_dump_json(exclude_none=True)) == PLAN


def test_the_task_of_a_plan_is_the_task_but_for_its_data() -> None:
    task = DevicePlan.read(PLAN.model_dump_json()).task.task()
    for name in ("name", "label_names", "input_shape", "mean", "std", "flip", "shift", "classes"):
        assert getattr(task, name) == getattr(CIFAR10, name)
    with pytest.raises(DataError, match="those of the device"):
        task.load(None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("proxy_digest", "../../etc/passwd"),
        ("proxy_size", 0),
        ("classes", {}),
        ("code", "import os"),
        ("classes", {"pi4": {"student": "tiny-conv-s", "uplink": "gzip"}}),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_and_says_where(key: str, value: object) -> None:
    raw = json.loads(PLAN.model_dump_json())
    with pytest.raises(ConfigError, match=f"the run's plan: {key}"):
        DevicePlan.read(json.dumps({**raw, key: value}))


def test_what_is_no_plan_is_refused() -> None:
    for content in ("", "{", "[]", "null"):
        with pytest.raises(ConfigError, match="the run's plan"):
            DevicePlan.read(content)
    with pytest.raises(ConfigError, match="more than"):
        DevicePlan.read(" " * (MAX_JSON + 1))
