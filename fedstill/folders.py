"""The user's folder for data: where servers, devices and keys lie unless told otherwise."""

import os
from pathlib import Path

from fedstill.errors import ConfigError


def data_folder(name: str, content: str, instead: str, variable: str = "") -> Path:
    """Return the folder that an environment variable names, or else `fedstill/<name>` in the user's data folder.

    Args:
        name: of the folder.
        content: what lies in it, for the error.
        instead: how to name another one, for the error.
        variable: the environment variable; empty: there is none.

    Raises:
        ConfigError: neither is set, and the user has no home.
    """
    own = os.environ.get(variable) if variable else None
    if own:
        return Path(own)
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ConfigError(f"no home folder for {content}; {instead}") from error
    return Path(data) / "fedstill" / name
