"""`python -m deploy.health WHAT`: exit code 0 where a part of the deployment is well, in the container that runs it.

`superlink` and `enrolment` answer over TLS under the server's own authority, `delivery` and `metrics` take connections,
`device` has a living agent and SuperNode. It is asked often, and on small devices: nothing is imported that this
doesn't need.
"""

import http.client
import os
import socket
import ssl
import sys
import tomllib
from pathlib import Path

TIMEOUT = 5.0  # seconds
METRICS_PORT = 9150
"""Of the metrics where they have a container of their own."""


def answers(port: int, path: str, authority: Path) -> bool:
    """Return whether a service on the loopback address answers a GET over TLS with 200."""
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Return whether something takes connections at a port of the loopback address."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT):
        return True


def lives(pid_file: Path) -> bool:
    """Return whether the process that a file names is there."""
    return Path("/proc", pid_file.read_text().strip()).is_dir()


def healthy(what: str) -> bool:
    """Return whether a part is well.

    Raises:
        OSError: it is not there.
        ValueError: there is no such part.
    """
    if what == "device":
        run = Path(os.environ["FEDSTILL_HOME"]) / "run"
        return all(lives(run / f"{name}.pid") for name in ("agent", "supernode", "apps"))
    if what == "metrics":
        return listens(METRICS_PORT)
    home = Path(os.environ["FEDSTILL_SERVER"])
    config = tomllib.loads((home / "server.toml").read_text())
    if what == "superlink":
        return answers(int(config["port"]), "/health", home / "ca.crt")
    if what == "enrolment":
        return answers(int(config["enrolment_port"]), "/ca.crt", home / "ca.crt")
    if what == "delivery":
        return listens(int(config["delivery_port"]))
    raise ValueError(f"no part is called {what}")


def main() -> int:
    """Look, and say what is wrong."""
    try:
        return 0 if healthy(sys.argv[1]) else 1
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(f"not healthy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
