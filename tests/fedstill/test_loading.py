from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from fedstill.loading import load_object, nearest, require, resolve


def test_an_object_of_a_users_file_is_loaded_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("thing = object()\n")
    assert load_object(f"{file}:thing") is load_object(f"{file}:thing")


def test_an_object_of_an_installed_module_is_loaded() -> None:
    import fedstill.consensus

    assert load_object("fedstill.consensus:mean") is fedstill.consensus.mean


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("nocolon", "not of the form"),
        ("no.such.module:thing", "No module named"),
        ("/no/such/file.py:thing", "no such Python file"),
        ("fedstill.consensus:meen", "did you mean 'mean'"),
    ],
)
def test_a_reference_to_nothing_says_what_is_missing(reference: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_object(reference)


def test_a_users_file_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"broken\.py: ZeroDivisionError"):
        load_object(f"{file}:thing")


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown rule 'meann'; did you mean 'mean'"):
        resolve("rule", "meann", {"mean": 1, "median": 2})


def test_without_a_near_word_all_are_listed() -> None:
    assert nearest("zzz", ["b", "a"]) == "valid: a, b"


def test_a_module_that_is_imported_late_is_missed_at_once() -> None:
    require("json")
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as missing:
        require("json", "no_such_module")
    assert missing.value.name == "no_such_module"
