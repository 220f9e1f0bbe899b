"""A device's processes: the agent, Flower's SuperNode, and the SuperExec, which starts a ClientApp for a message."""

import os
import pwd
from pathlib import Path

from client.home import Home
from client.install.layout import Users
from fedstill.processes import Program, module, script

SUPERNODE_PAUSE = 10.0
"""Seconds before a SuperNode that ended starts again. The SuperLink turns away one whose last connection it has not
given up yet, for 60 s at most: it simply comes back until it is let in."""
SUPERNODE_LONGEST_PAUSE = 300.0
"""Seconds to which that grows for one that is turned away for longer, such as a revoked device or one whose clock is
wrong: each start is work for the processor and the disk."""


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
    agent_user, node_user, app_user = ("", "", "") if users is None else users.names()
    bundles = home.flwr if users is None else home.apps

    def living(folder: Path) -> dict[str, str]:
        """A user of its own has no home but this."""
        return one if users is None else {**one, "HOME": str(folder)}

    return [
        Program("agent", agent, env=living(home.state), user=agent_user, nice=nice),
        Program(
            "supernode",
            supernode,
            SUPERNODE_PAUSE,
            {**living(home.flwr), "FLWR_HOME": str(home.flwr)},
            node_user,
            longest_pause=SUPERNODE_LONGEST_PAUSE,
        ),
        Program("apps", apps, env={**living(bundles), "FLWR_HOME": str(bundles)}, user=app_user),
    ]
