"""Names of things: built-in ones, `module:object` and a user's own `file.py:object`."""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from fedstill.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the valid word nearest to `name`, and all of them when none is near."""
    words = sorted(valid)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(words)}"


@lru_cache(maxsize=64)  # a device names its student's file in each round
def _module_name(path: Path) -> str:
    return f"fedstill_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such Python file")
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def require(*modules: str) -> None:
    """Make sure that modules are installed which are imported late, without importing them.

    Raises:
        ModuleNotFoundError: one is missing.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def load_object(reference: str) -> Any:
    """Load `package.module:object` or `/path/file.py:object`.

    Raises:
        ConfigError: the reference has no colon, the module can't be imported, or it has no such object.
    """
    place, separator, attribute = reference.rpartition(":")
    if not separator or not place or not attribute:
        raise ConfigError(f"{reference!r} is not of the form module:object or file.py:object")
    if place.endswith(".py"):
        module = _module_of_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise ConfigError(f"{reference!r}: {error}") from error
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"{place} has no {attribute!r}; {nearest(attribute, names)}")
    return getattr(module, attribute)


def resolve(kind: str, name: str, builtin: Mapping[str, T]) -> T:
    """Return the built-in `name`, or what a `module:object` reference names.

    Raises:
        ConfigError: neither; the message names the nearest built-in one.
    """
    if name in builtin:
        return builtin[name]
    if ":" in name:
        loaded: T = load_object(name)
        return loaded
    raise ConfigError(f"unknown {kind} {name!r}; {nearest(name, builtin)}")
