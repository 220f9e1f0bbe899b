"""What `fedstill client status` tells of a device as a part of a fleet."""

import os
import time
from datetime import datetime

from client.home import PAUSED, Home
from client.limits import Gate, read_limits
from client.sensors import temperature
from client.timekeeping import disbelieved
from fedstill.errors import ConfigError
from fedstill.processes import holder


def check_may_look(home: Home) -> None:
    """Make sure that this user may look into a device's folder.

    Raises:
        ConfigError: the device has users of its own, and this is not root.
    """
    if home.users.exists() and os.geteuid() != 0:
        raise ConfigError(f"{home.folder}: this device has users of its own; only root can look into it (sudo)")


def device_rows(home: Home) -> dict[str, str]:
    """Return what there is to say about an enrolled device, by name; empty: there is none.

    Raises:
        ConfigError: this user may not look, or a file can't be read.
    """
    if not home.config_path.exists():
        return {}
    check_may_look(home)
    config, limits = home.config(), read_limits(home)
    clock = disbelieved(home, time.time())
    gate = Gate(home.folder, now=lambda: None if clock else datetime.now())
    heat, closed = temperature(), gate.closed(limits)
    try:
        said = (home.agent_run / PAUSED).read_text().strip()
    except OSError:
        said = ""
    return {
        "fleet": f"device {config.number} of class {config.device_class} at {config.superlink}",
        "agent runs": "yes" if holder(home.run / "client.lock") is not None else "no",
        "isolation": "on" if home.users.exists() else "off: one user runs everything",
        "temperature": "no sensor" if heat is None else f"{heat:.1f} degrees Celsius",
        "clock": clock or "believed",
        "may train": f"not now: {closed}" if closed else "yes",
        "last asked": f"was absent: {said}" if said else "took part, or was not asked yet",
    }
