"""Where the signing keys lie unless told; apart from the keys, whose libraries a worker does without."""

import os
from pathlib import Path

from fedstill.errors import ConfigError


def default_folder() -> Path:
    """Return the installation's key folder: `FEDSTILL_KEYS`, or `fedstill/keys` in the user's data folder.

    Raises:
        ConfigError: neither is set, and the user has no home.
    """
    own = os.environ.get("FEDSTILL_KEYS")
    if own:
        return Path(own)
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ConfigError("no home folder for the signing keys; set FEDSTILL_KEYS or give --keys") from error
    return Path(data) / "fedstill" / "keys"
