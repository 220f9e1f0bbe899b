"""`python -m server.deployment.superlink ...`: Flower's SuperLink, whose requests wait longer for its database.

One request after the other writes to an SQLite file. Flower 1.41 gives up after five seconds, which a request reaches
where a hundred devices answer at once: it fails, and its device loses the round's message, to be asked again minutes
later (docs/operations.md).
"""

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.superlink.cli import flower_superlink

WAIT = 25.0
"""Seconds; after 30 a device's own request is given up."""


def be_patient() -> None:
    """Let each connection to the database that is opened from now on wait for its turn."""
    longer = (*SQLITE_PRAGMAS, ("busy_timeout", f"{1000 * WAIT:.0f}"))
    setattr(sql_mixin, "SQLITE_PRAGMAS", longer)  # noqa: B010 -- there is no option for it


if __name__ == "__main__":
    be_patient()
    flower_superlink()
