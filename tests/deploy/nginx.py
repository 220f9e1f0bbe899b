"""The proxy of the images, on this machine's own nginx."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.deployment import free_ports

CONFIG = Path(__file__).parents[2] / "deploy" / "images" / "nginx.conf"


def own_config(folder: Path, home: Path, ports: dict[str, int]) -> str:
    """Return the proxy's configuration with the ports and folders of this machine."""
    text = CONFIG.read_text()
    changes = {
        "/tmp/": f"{folder}/",  # first: the others bring paths of their own
        "listen 8443": f"listen 127.0.0.1:{ports['public']}",
        "server 127.0.0.1:8000": f"server 127.0.0.1:{ports['superlink']}",
        "server 127.0.0.1:8001": f"server 127.0.0.1:{ports['enrolment']}",
        "server 127.0.0.1:8002": f"server 127.0.0.1:{ports['delivery']}",
        "/etc/fedstill/tls": str(home),
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def start_nginx(folder: Path, home: Path, ports: dict[str, int]) -> "subprocess.Popen[bytes]":
    """Start nginx in a process group of its own; what it says lies in `nginx.out`.

    Args:
        folder: for its files.
        home: the server's folder, with the certificate.
        ports: `public`, `superlink`, `enrolment` and `delivery`.
    """
    config = folder / "nginx.conf"
    config.write_text(own_config(folder, home, ports))
    with (folder / "nginx.out").open("ab") as out:
        words = ["nginx", "-c", str(config), "-g", "daemon off;"]
        return subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)


class Proxy:
    """nginx before a SuperLink, to be killed and started again.

    Args:
        folder: for its files.
        superlink: port of the SuperLink.
    """

    def __init__(self, folder: Path, superlink: int) -> None:
        self.public, enrolment, delivery = free_ports(3)
        self._ports = {"public": self.public, "superlink": superlink, "enrolment": enrolment, "delivery": delivery}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, home: Path) -> None:
        """Start it with the certificate of a server's folder."""
        self._process = start_nginx(self._folder, home, self._ports)

    def kill(self) -> None:
        """Kill all its processes, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def proxied(folder: Path, superlink: int, home: Path) -> Iterator[Proxy]:
    """Start a proxy with the certificate of a server's folder, and leave none behind."""
    proxy = Proxy(folder, superlink)
    proxy.start(home)
    try:
        yield proxy
    finally:
        proxy.kill()
