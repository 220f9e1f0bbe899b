from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from simulations.scenario import Scenario, builtin, dump, load_scenario, raw_scenario, resolved
from simulations.validate import validate


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_built_in_scenarios_load_and_keep_the_fixed_server_sets(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.data.server_samples == {"digits": 150, "mnist": 600, "cifar10": 2500}[name]
    assert set(scenario.device_classes) == {"pi5", "pi4", "zero2w", "mcu"}
    assert len({kind.student for kind in scenario.device_classes.values()}) == 4


def test_exactly_the_documented_scenarios_are_built_in() -> None:
    assert builtin() == ["cifar10", "digits", "fedgen-mnist", "mnist", "one-class-mnist", "sst2"]


def test_a_dumped_scenario_loads_back_equal(tmp_path: Path) -> None:
    scenario = load_scenario("cifar10", ["seed=7", "partition.alpha=0.1", "data.dir='/data'"])
    (tmp_path / "config.toml").write_text(dump(scenario))
    assert load_scenario(str(tmp_path / "config.toml")) == scenario


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("device.revist.epochs=1", "did you mean 'revisit'"),
        ("partition.alpha=0", "greater than 0"),
        ("partition.alpha=1e300", "less than or equal to"),
        ("rounds=0", "greater than or equal to 1"),
        ("exchange.per_round=100000", "exceeds data.proxy_samples"),
        ("data.guard_samples=150", "leave no server sample"),
        ("devices=2", "can't fill 4 device classes"),
        ("data.guard_samples=0", "needs data.guard_samples"),
        ("exchange.active=21", "asks 21 of 20 devices"),
        ("exchange.uplink=float8", "exchange.uplink"),
    ],
)
def test_a_bad_change_is_one_line_that_says_what_is_wrong(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_scenario("digits", [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fedgen-mnist", "one-class-mnist"])
def test_the_scenarios_without_a_teacher_have_one_device_class_and_load_what_they_name(
    name: str, tmp_path: Path
) -> None:
    scenario = load_scenario(name, ["partition.alpha=0.05"])
    assert scenario.teacher is None
    assert len(scenario.device_classes) == 1
    validate(scenario)
    (tmp_path / "config.toml").write_text(dump(scenario))
    assert load_scenario(str(tmp_path / "config.toml")) == scenario


@pytest.mark.parametrize("name", ["/tmp/victim", "..", ".", "", "a/b", "Pi5", "-pi", "pi5\n"])
def test_a_class_whose_name_could_lead_out_of_its_folder_is_refused_in_one_line(name: str) -> None:
    raw = raw_scenario("digits")
    raw["device_classes"][name] = raw["device_classes"].pop("mcu")
    with pytest.raises(ConfigError) as caught:
        resolved(raw, [], "mine")
    assert str(caught.value).startswith(f"mine: device_classes: {name!r} is no name of a class")
    assert "\n" not in str(caught.value)


def test_server_labels_without_a_teacher_are_refused() -> None:
    with pytest.raises(ConfigError, match="of no use without a teacher"):
        load_scenario("fedgen-mnist", ["data.server_samples=100"])


def test_an_unknown_scenario_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown scenario 'digit'; did you mean 'digits'"):
        load_scenario("digit")


@pytest.mark.parametrize("devices", [4, 5, 7, 20, 1000])
def test_devices_are_spread_over_classes_by_share_and_no_class_is_empty(devices: int) -> None:
    changes = [f"devices={devices}", "device_classes.mcu.share=5"]
    classes = load_scenario("digits", changes).classes_of_devices()
    counts = {name: classes.count(name) for name in set(classes)}
    assert sum(counts.values()) == devices
    assert min(counts.values()) >= 1
    assert len(counts) == 4
    assert counts["mcu"] == max(counts.values())


def test_a_device_class_may_have_encodings_of_its_own_and_they_survive_the_dump(tmp_path: Path) -> None:
    scenario = load_scenario("digits", ["device_classes.mcu.uplink='simplex1'", "device_classes.mcu.downlink='top3'"])
    assert scenario.device_classes["mcu"].uplink == "simplex1"
    assert scenario.device_classes["pi5"].uplink == ""
    (tmp_path / "same.toml").write_text(dump(scenario))
    assert load_scenario(str(tmp_path / "same.toml")) == scenario


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("exchange.uplink='simplex9'", "no encoding 'simplex9'; there are float32"),
        ("device_classes.mcu.uplink='float8'", "no encoding 'float8'"),
        ("exchange.delta=true", "delta saves nothing unless entropy_coding is on"),
    ],
)
def test_an_encoding_that_is_none_and_a_delta_without_coding_are_refused(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_scenario("digits", [change])


def test_top_k_of_all_classes_is_refused_before_the_run() -> None:
    with pytest.raises(
        ConfigError,
        match=r"device_classes\.mcu\.uplink: .*'top10' needs more classes than the 10 of this task; top9 keeps most",
    ):
        validate(load_scenario("digits", ["device_classes.mcu.uplink='top10'"]))


def test_references_in_a_users_scenario_file_are_seen_from_its_folder(tmp_path: Path) -> None:
    scenario = load_scenario("digits").model_dump(exclude_none=True)
    import tomli_w

    scenario["task"] = "mine.py:task"
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(scenario))
    assert load_scenario(str(tmp_path / "mine.toml")).task == f"{tmp_path.resolve()}/mine.py:task"


def test_every_field_of_every_section_is_documented() -> None:
    def check(model: type) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                check(kind)
            elif name != "device_classes":
                assert field.description, f"{model.__name__}.{name}"

    check(Scenario)


def test_a_class_names_its_numeric_format_or_leaves_it_to_measuring() -> None:
    formats = {name: kind.format for name, kind in load_scenario("sst2").device_classes.items()}
    assert set(formats.values()) == {"dynamic-int8"}
    assert load_scenario("digits").device_classes["mcu"].format == "static-int8"
    assert load_scenario("digits", ["device_classes.mcu.format=measured"]).device_classes["mcu"].format == "measured"
    with pytest.raises(ConfigError, match=r"device_classes\.mcu\.format"):
        load_scenario("digits", ["device_classes.mcu.format=int3"])


@pytest.mark.parametrize("change", ["exchange.duration=3", "exchange.delta=true"])
def test_hostile_devices_with_answers_that_leave_something_out_are_refused(change: str) -> None:
    with pytest.raises(ConfigError, match=r"attack\.share"):
        load_scenario("digits", ["attack.share=0.2", "exchange.entropy_coding=true", change])
