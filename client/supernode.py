"""`python -m client.supernode ...`: Flower's SuperNode, whose process ends when its work does.

Flower 1.41's SuperNode gives up on a connection that is cut in its TLS handshake, and on a server's error: its loop
ends, but its process stays up, held by the thread of its local service, and asks for no more work. As a process that
ends it is started again, like any other.
"""

import os
import sys
import traceback

from flwr.supernode.cli import flower_supernode


def main() -> None:
    """Run it, with the command line of `flower-supernode`; end the process with it, whatever threads it leaves."""
    code = 1
    try:
        flower_supernode()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
