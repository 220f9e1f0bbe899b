"""Configuration: typed, frozen, resolved once at the edge; every field is documented where it is defined."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fedstill.errors import ConfigError
from fedstill.loading import nearest

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of all configuration sections: immutable; unknown keys are errors, and so are numbers without an end."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _keys_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the valid keys of the section at `path` below `model`."""
    for part in path:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            continue
        nested = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        model = next((kind for kind in nested if issubclass(kind, BaseModel)), model)
    return sorted(model.model_fields)


def parse(kind: type[S], raw: Mapping[str, Any], source: str) -> S:
    """Build settings from raw values.

    Args:
        kind: the settings to build.
        raw: nested values, as TOML gives them.
        source: where they come from, for the error.

    Raises:
        ConfigError: an unknown key, with the nearest valid one, or a value that is out of range; one line.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            hint = nearest(str(first["loc"][-1]), _keys_at(kind, first["loc"][:-1]))
            raise ConfigError(f"{source}: unknown key {place!r}; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        if not isinstance(first["input"], dict):  # a whole section would bury the message
            message += f" (given: {first['input']!r})"
        raise ConfigError(": ".join(part for part in (source, place, message) if part)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file can't be read or parsed.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def read_json(kind: type[S], path: Path, missing: str, wrong: str) -> S:
    """Read settings from a JSON file that a command wrote.

    Args:
        kind: the settings to build.
        path: the file.
        missing: what to say of a file that can't be read.
        wrong: what to say of one that holds something else.

    Raises:
        ConfigError: the file can't be read, or holds something else; one line.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {missing}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {wrong}: {place}: {first['msg']}") from error


def override(raw: dict[str, Any], assignment: str) -> None:
    """Apply a `section.key=value` assignment to raw values; the value is TOML, or a bare word for a string.

    Raises:
        ConfigError: the assignment has no `=`, or a part of its path is not a section.
    """
    path, separator, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {assignment}: not of the form key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    section = raw
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {assignment}: {key!r} is a value, not a section")
    section[keys[-1]] = value
