"""A device's processes: the agent, Flower's SuperNode, and the SuperExec, which starts a ClientApp for a message."""

import os
import pwd

from client.home import Home
from client.install.layout import Users
from fedstill.processes import Program, module, script

SUPERNODE_PAUSE = 10.0
"""Seconds before a SuperNode that ended starts again. The SuperLink turns away one whose last connection it has not
given up yet, for 60 s at most: it simply comes back until it is let in."""


def programs(home: Home, users: Users | None = None, nice: int = 0) -> list[Program]:
    """Return what `fedstill client start` keeps running.

    Args:
        home: the device's folder.
        users: who runs what; None: this user runs everything.
        nice: niceness of the agent, which does the work.

    Raises:
        ConfigError: the device is not enrolled, or Flower is not installed.
    """
    config = home.config()
    script("flower-supernode")  # is Flower there at all?
    secret = ("--superexec-auth-secret-file", str(home.secret))
    supernode = [
        *module("client.supernode"),
        *("--superlink", config.superlink),
        *("--root-certificates", str(home.authority)),
        *("--auth-supernode-private-key", str(home.key)),
        *("--node-config", f'agent="{home.socket}"'),
        *("--host", "127.0.0.1"),
        *("--port", str(config.supernode_port)),
        *("--isolation", "process"),
        *secret,
    ]
    apps = module(
        "client.apps",
        str(os.getuid() if users is None else pwd.getpwnam(users.node).pw_uid),
        *("--insecure", "--runtime-api-address", f"127.0.0.1:{config.supernode_port}"),  # never leaves the machine
        *secret,
    )
    agent = module("client.agent", str(home.folder))
    one = {"OMP_NUM_THREADS": "1"}  # thread, like a simulated device's process: threads change sums
    flower = {**one, "FLWR_HOME": str(home.flwr)}
    if users is None:
        return [
            Program("agent", agent, env=one, nice=nice),
            Program("supernode", supernode, SUPERNODE_PAUSE, flower),
            Program("apps", apps, env=flower),
        ]
    own = {**one, "FLWR_HOME": str(home.apps), "HOME": str(home.apps)}
    return [
        Program("agent", agent, env={**one, "HOME": str(home.state)}, user=users.agent, nice=nice),
        Program("supernode", supernode, SUPERNODE_PAUSE, {**flower, "HOME": str(home.flwr)}, user=users.node),
        Program("apps", apps, env=own, user=users.app),
    ]
