"""Where the signing keys lie unless told; apart from the keys, whose libraries a worker does without."""

from pathlib import Path

from fedstill.folders import data_folder


def default_folder() -> Path:
    """Return the installation's key folder: `FEDSTILL_KEYS`, or `fedstill/keys` in the user's data folder.

    Raises:
        ConfigError: neither is set, and the user has no home.
    """
    return data_folder("keys", "the signing keys", "set FEDSTILL_KEYS or give --keys", "FEDSTILL_KEYS")
