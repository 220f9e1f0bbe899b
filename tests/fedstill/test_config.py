from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from fedstill.config import Settings, override, parse, read_toml
from fedstill.errors import ConfigError


class Inner(Settings):
    rate: float = Field(default=0.1, gt=0)
    """A rate."""


class Outer(Settings):
    name: str
    """A name."""
    inner: Inner = Inner()
    """A section."""


def test_an_unknown_key_is_answered_with_the_nearest_valid_one() -> None:
    with pytest.raises(ConfigError, match=r"file: unknown key 'inner.rats'; did you mean 'rate'\?"):
        parse(Outer, {"name": "x", "inner": {"rats": 1}}, "file")


def test_a_value_out_of_range_is_one_line_with_place_and_value() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"name": "x", "inner": {"rate": -1}}, "file")
    assert "inner.rate" in str(caught.value)
    assert "-1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_can_not_be_changed() -> None:
    settings = Outer(name="x")
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "y"


def test_every_documented_field_carries_its_documentation() -> None:
    assert Outer.model_fields["inner"].description == "A section."


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a=1", {"a": 1}),
        ("a.b=0.5", {"a": {"b": 0.5}}),
        ("a=word", {"a": "word"}),
        ("a='quoted words'", {"a": "quoted words"}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a=true", {"a": True}),
    ],
)
def test_an_override_takes_toml_or_a_bare_word(assignment: str, expected: dict[str, Any]) -> None:
    raw: dict[str, Any] = {}
    override(raw, assignment)
    assert raw == expected


@pytest.mark.parametrize("assignment", ["a", "=1", "a..b=1"])
def test_an_override_of_another_form_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        override({}, assignment)


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a value"):
        override({"a": 1}, "a.b=2")


def test_a_broken_or_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")
