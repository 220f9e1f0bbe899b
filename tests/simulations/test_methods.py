from pathlib import Path

import pytest

from fedstill.config import read_toml
from fedstill.errors import ConfigError
from fedstill.settings import ConsensusSettings
from simulations.methods import OVERLAYS, load_method, merged, methods
from simulations.scenario import dump, load_scenario
from simulations.validate import validate

BASELINES = [name for name in methods() if name != "fedstill"]


def test_the_product_is_the_scenario_as_it_is() -> None:
    assert load_method("mnist", "fedstill", ["seed=3"]) == load_scenario("mnist", ["seed=3"])


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_changes_neither_data_nor_split_nor_seed_nor_fleet(name: str) -> None:
    base, found = load_scenario("digits", ["seed=3"]), load_method("digits", name, ["seed=3"])
    for key in ("task", "seed", "rounds", "devices", "data", "partition"):
        assert getattr(found, key) == getattr(base, key)
    assert found.classes_of_devices() == base.classes_of_devices()
    assert (found.name, found.method.name) == (f"digits-{name}", name)
    validate(found)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_says_in_its_head_what_it_follows(name: str) -> None:
    head = (OVERLAYS / f"{name}.toml").read_text().partition("[")[0]
    assert head.startswith("# ")
    assert "arXiv" in head or name in ("local-only", "centralized")


@pytest.mark.parametrize("name", BASELINES)
def test_a_baselines_resolved_configuration_loads_back_equal(name: str, tmp_path: Path) -> None:
    found = load_method("digits", name)
    (tmp_path / "config.toml").write_text(dump(found))
    assert load_scenario(str(tmp_path / "config.toml")) == found


def test_only_fedavg_and_feddf_send_weights() -> None:
    sending = {name for name in methods() if load_method("digits", name).method.sends_weights}
    assert sending == {"fedavg", "feddf"}


@pytest.mark.parametrize("name", ["online", "neighbours"])
def test_a_scheme_that_begins_with_a_teacher_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match=f"method {name} needs a teacher"):
        load_method("one-class-mnist", name)


def test_fedmd_is_the_plain_mean_of_the_devices_and_digest_before_revisit() -> None:
    found = load_method("mnist", "fedmd")
    assert (found.consensus.rule, found.consensus.teacher_weight) == ("mean", 0.0)
    assert (found.device.send_class_prior, found.device.logit_adjustment) == (False, 0.0)
    assert found.method.server == found.method.device == ""


@pytest.mark.parametrize("name", ["fedmd", "dsfl", "cfd", "scarlet", "selective-fd", "edgefd", "fedgems"])
def test_what_a_scenario_set_for_the_product_is_not_the_methods(name: str) -> None:
    changes = [
        "device.certainty='k-means'",
        "device.abstain_below=0.3",
        "device.anchor_weight=2.0",
        "device.temperature.start=2.0",
        "exchange.duration=3",
        "exchange.delta=true",
        "exchange.entropy_coding=true",
    ]
    overlay = read_toml(OVERLAYS / f"{name}.toml")
    own, plain = (merged(load_scenario("digits", some).model_dump(), overlay) for some in (changes, []))
    assert own["device"] == plain["device"]
    assert own["exchange"] == plain["exchange"]


@pytest.mark.parametrize("name", ["fedmd", "dsfl", "cfd", "scarlet", "edgefd"])
def test_a_method_that_digests_is_refused_where_the_scenario_has_no_digest(name: str) -> None:
    with pytest.raises(ConfigError, match=r"device\.digest is missing"):
        load_method("one-class-mnist", name)
    changes = ["device.digest={epochs=1, learning_rate=0.01}"]
    assert load_method("one-class-mnist", name, changes).device.digest is not None


def test_edgefd_filters_on_the_device_alone() -> None:
    found = load_method("mnist", "edgefd")
    assert (found.device.certainty, found.consensus.rule, found.teacher) == ("k-means", "mean", None)
    assert found.device.abstain_below > 0
    assert not found.device.send_certainty


def test_fedgems_selects_by_a_teacher_and_needs_one() -> None:
    found = load_method("mnist", "fedgems")
    assert (found.consensus.rule, found.consensus.teacher_weight) == ("selective-teacher", 0.0)
    assert found.teacher == load_scenario("mnist").teacher
    with pytest.raises(ConfigError, match="'selective-teacher' needs a teacher"):
        load_method("fedgen-mnist", "fedgems")


def test_an_overlay_may_do_without_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.methods.OVERLAYS", tmp_path)
    (tmp_path / "plain.toml").write_text('without = ["consensus"]\n[method]\nname = "plain"\n')
    found = load_method("digits", "plain")
    assert found.consensus == ConsensusSettings() != load_scenario("digits").consensus


def test_fedavg_gives_all_devices_the_smallest_student_unless_told_otherwise() -> None:
    found = load_method("digits", "fedavg")
    assert {kind.student for kind in found.device_classes.values()} == {"tiny-separable-s"}
    changes = [f"device_classes.{name}.student=tiny-conv-m" for name in found.device_classes]
    told = load_method("digits", "fedavg", changes)
    assert {kind.student for kind in told.device_classes.values()} == {"tiny-conv-m"}


def test_changes_have_the_last_word_over_an_overlay() -> None:
    assert load_method("digits", "fedavg", ["device.logit_adjustment=0.5"]).device.logit_adjustment == 0.5


def test_an_unknown_method_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown method 'fedavgg'; did you mean 'fedavg'"):
        load_method("digits", "fedavgg")


def test_overlays_merge_section_by_section() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": {"f": 5}}) == {
        "a": {"b": 1, "c": 4},
        "d": 3,
        "e": {"f": 5},
    }


def test_a_change_of_the_teacher_passes_by_a_method_without_one() -> None:
    changes = ["teacher.initial.epochs=3", "rounds=7"]
    assert load_method("digits", "dsfl", changes).teacher is None
    assert load_method("digits", "dsfl", changes).rounds == 7
    whole = 'teacher={architecture="tiny-conv-l", initial={epochs=3, learning_rate=0.05}}'
    assert load_method("digits", "dsfl", [whole]).teacher is None
    assert load_method("digits", "dsfl", [" teacher = {}"]).teacher is None
    teacher = load_method("digits", "fedmd", changes).teacher
    assert teacher is not None
    assert teacher.initial.epochs == 3
