"""The server's processes: SuperLink, the superexec that starts ServerApps, enrolment service and delivery service.

The superexec is a process of its own: a run then survives the SuperLink's death, which it does not inside it.
"""

import os
from typing import NoReturn

from fedstill.errors import ConfigError
from fedstill.processes import Program, module, script, search_path
from server.deployment.home import DELIVERY, ServerConfig, ServerHome


def programs(home: ServerHome) -> list[Program]:
    """Return what `fedstill server start` keeps running."""
    config = home.config()
    quiet = {"FLWR_HOME": str(home / "flwr")}
    secret = ["--superexec-auth-secret-file", str(home / "superexec.secret")]
    script("flower-superlink")  # is Flower there at all?
    superlink = [
        *module("server.deployment.superlink"),
        *("--ssl-ca-certfile", str(home / "ca.crt")),
        *("--ssl-certfile", str(home / "server.crt")),
        *("--ssl-keyfile", str(home / "server.key")),
        "--enable-supernode-auth",
        *("--isolation", "process"),
        *("--database", str(home / "superlink.db")),
        *("--host", config.listen),
        *("--port", str(config.port)),
        "--disable-runtime-dependency-installation",
        *secret,
    ]
    superexec = [
        *module("server.deployment.superexec"),
        *("--runtime-api-address", config.control),
        *("--root-certificates", str(home / "ca.crt")),
        *secret,
    ]
    metrics = Program("metrics", module("server.deployment.metrics", str(home.folder)))
    return [
        Program("superlink", superlink, env=quiet),
        Program("superexec", superexec, env=quiet),
        Program("enrolment", module("server.enrolment", str(home.folder))),
        Program("delivery", _delivery(home, config)),
        *([metrics] if config.metrics_port else []),
    ]


def become(home: ServerHome, name: str) -> NoReturn:
    """Turn this process into one of them: where each has a container, the container's engine keeps it running.

    Raises:
        ConfigError: there is none of that name, or it can't be started.
    """
    known = {program.name: program for program in programs(home)}
    if name not in known:
        raise ConfigError(f"--only {name}: no such process; there are {', '.join(known)}")
    environment = {**os.environ, "PATH": search_path(), "PYTHONUNBUFFERED": "1", **known[name].env}
    try:
        os.chdir(home.folder)
        os.execve(known[name].command[0], list(known[name].command), environment)
    except OSError as error:
        raise ConfigError(f"{name} can't be started: {error}") from error


def _delivery(home: ServerHome, config: ServerConfig) -> list[str]:
    host = f"[{config.delivery_listen}]" if ":" in config.delivery_listen else config.delivery_listen
    return module(
        "fedstill.cli",
        *("server", "deliver", str(home / "store")),
        *("--address", f"{host}:{config.delivery_port}"),
        *("--cert", str(home / "server.crt")),
        *("--key", str(home / "server.key")),
        *("--state", str(home / DELIVERY)),
    )
