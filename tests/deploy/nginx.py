"""The proxy of the images, on this machine's own nginx."""

import subprocess
from pathlib import Path

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
