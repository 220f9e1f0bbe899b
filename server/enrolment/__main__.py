"""`python -m server.enrolment HOME`: run the enrolment service of the server in a folder until it is told to end."""

import sys
import threading
from pathlib import Path

from fedstill.processes import run_service, stopped_by_signals
from server.delivery.logs import begin_log
from server.deployment.control import Control
from server.deployment.home import ServerConfig, ServerHome
from server.enrolment.registry import Registry
from server.enrolment.service import Enrolment, Server


def run(folder: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    home = ServerHome(folder)
    config = home.config()
    begin_log(as_json=config.json_logs)
    stop = stopped_by_signals()
    enrolment = Enrolment(Registry(home / "fleet.db"), Control(home), config.superlink, _also(home, config))
    with Server(home, enrolment, (config.enrolment_listen, config.enrolment_port)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stop.wait()
        server.shutdown()


def _also(home: ServerHome, config: ServerConfig) -> dict[str, str]:
    """Return from where devices fetch what runs need, and under which root; nothing for a server that has none."""
    root = home / "root.json"
    return {"delivery": config.delivery, "root": root.read_text()} if root.is_file() else {}


if __name__ == "__main__":
    sys.exit(run_service(run))
