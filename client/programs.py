"""A device's processes: the agent, and Flower's SuperNode, which starts a ClientApp for every message."""

from client.home import Home
from fedstill.processes import Program, module, script

SUPERNODE_PAUSE = 10.0
"""Seconds before a SuperNode that ended starts again. The SuperLink turns away one whose last connection it has not
given up yet, for 60 s at most: it simply comes back until it is let in."""


def programs(home: Home) -> list[Program]:
    """Return what `fedstill client start` keeps running.

    Raises:
        ConfigError: the device is not enrolled, or Flower is not installed.
    """
    config = home.config()
    supernode = [
        script("flower-supernode"),
        *("--superlink", config.superlink),
        *("--root-certificates", str(home.authority)),
        *("--auth-supernode-private-key", str(home.key)),
        *("--node-config", f'agent="{home.socket}"'),
        *("--host", "127.0.0.1"),
        *("--port", str(config.supernode_port)),
    ]
    return [
        # One thread, like a simulated device's process: threads change sums.
        Program("agent", module("client.agent", str(home.folder)), env={"OMP_NUM_THREADS": "1"}),
        Program("supernode", supernode, pause=SUPERNODE_PAUSE, env={"FLWR_HOME": str(home.flwr)}),
    ]
