"""`python -m client.agent HOME`: run the agent of the device in a folder until it is told to end."""

import fcntl
import logging
import sys
from pathlib import Path

from client.agent.carrier import Carrier
from client.agent.service import serve
from client.home import Home
from fedstill.errors import ConfigError
from fedstill.processes import run_service, stopped_by_signals


def run(folder: Path) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: there is no device in the folder, or its agent runs already.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    home = Home(folder)
    home.run.mkdir(parents=True, exist_ok=True, mode=0o750)
    home.agent_run.mkdir(exist_ok=True, mode=0o750)
    home.state.mkdir(exist_ok=True, mode=0o700)  # a home that was there before may be open to others
    with (home.agent_run / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{home.folder}: its agent is running already") from error
        stop = stopped_by_signals()
        server = serve(Carrier(home), home.socket)
        logging.getLogger("fedstill").info("listening on %s", home.socket)
        stop.wait()
        server.stop(grace=None).wait()


if __name__ == "__main__":
    sys.exit(run_service(run))
