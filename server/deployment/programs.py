"""The server's processes: Flower's SuperLink, the superexec that starts ServerApps, and the enrolment service.

The superexec is a process of its own: a run then survives the SuperLink's death, which it does not inside it.
"""

from fedstill.processes import Program, module, script
from server.deployment.home import ServerHome


def programs(home: ServerHome) -> list[Program]:
    """Return what `fedstill server start` keeps running."""
    config = home.config()
    quiet = {"FLWR_HOME": str(home / "flwr")}
    secret = ["--superexec-auth-secret-file", str(home / "superexec.secret")]
    superlink = [
        script("flower-superlink"),
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
        script("flower-superexec"),
        *("--runtime-api-address", config.control),
        *("--root-certificates", str(home / "ca.crt")),
        *secret,
    ]
    metrics = Program("metrics", module("server.deployment.metrics", str(home.folder)))
    return [
        Program("superlink", superlink, env=quiet),
        Program("superexec", superexec, env=quiet),
        Program("enrolment", module("server.enrolment", str(home.folder))),
        *([metrics] if config.metrics_port else []),
    ]
