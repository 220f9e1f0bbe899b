"""The app that a run sends to its devices: a configuration that names what they have installed, and no code.

Flower runs whatever a bundle holds. A bundle of ours holds nothing to run: both sides run what their owners installed.
"""

from importlib.metadata import version
from pathlib import Path

import tomli_w

from fedstill.files import write_atomic

KEYS = ("job", "host", "run", "plan", "out")
"""What a run configuration of ours holds, all strings. Every device gets it."""


def write_bundle(folder: Path) -> Path:
    """Write the app into a folder and return it."""
    app = {
        "project": {"name": "fedstill", "version": version("fedstill"), "description": "Fedstill, as it is installed."},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedstill",
                    "components": {"serverapp": "server.app:app", "clientapp": "client.app:app"},
                    "config": dict.fromkeys(KEYS, ""),
                }
            }
        },
    }
    write_atomic(folder / "pyproject.toml", tomli_w.dumps(app).encode())
    return folder
