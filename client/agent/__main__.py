"""`python -m client.agent HOME`: run the agent of the device in a folder until it is told to end."""

import fcntl
import logging
import signal
import sys
import threading
from pathlib import Path

from client.agent.carrier import Carrier
from client.agent.service import serve
from client.home import Home
from fedstill.errors import ConfigError, FedstillError


def run(folder: Path) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: there is no device in the folder, or its agent runs already.
    """
    home = Home(folder.resolve())
    home.run.mkdir(parents=True, exist_ok=True, mode=0o750)
    home.state.mkdir(exist_ok=True, mode=0o700)  # a home that was there before may be open to others
    with (home.run / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{home.folder}: its agent is running already") from error
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        server = serve(Carrier(home), home.socket)
        logging.getLogger("fedstill").info("listening on %s", home.socket)
        stop.wait()
        server.stop(grace=None).wait()


def main() -> int:
    """Run, and tell errors in one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run(Path(sys.argv[1]))
    except FedstillError as error:
        print(f"fedstill: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
