"""`python -m client.supernode ...`: Flower's SuperNode, whose process ends when its work does.

Flower 1.41's SuperNode gives up on a connection that is cut in its TLS handshake, and on a server's error: its loop
ends, but its process stays up, held by the thread of its local service, and asks for no more work. The thread of its
heartbeats ends at a server's error too, such as that of a database without room, and the device counts as gone for
ever. As a process that ends it is started again, like any other. What it does with messages, `client.turns` mends.
"""

import os
import sys
import threading
import traceback
from typing import NoReturn

from flwr.supernode.cli import flower_supernode

from client.turns import take_turns


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(failure)
    if failure.exc_type is not SystemExit:  # that ends a thread alone
        _end(1)


def main() -> None:
    """Run it, with the command line of `flower-supernode`; end the process with it, or with a thread that fails."""
    threading.excepthook = _end_with_thread
    take_turns()
    code = 1
    try:
        flower_supernode()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


if __name__ == "__main__":
    main()
