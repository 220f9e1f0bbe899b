"""The fleet on disk: devices, and the tokens that make them. A token's secret is kept as its hash alone."""

import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedstill.errors import ConfigError, DataError
from fedstill.rounds import Owner

TABLES = """
CREATE TABLE IF NOT EXISTS tokens (
    hash TEXT PRIMARY KEY, class TEXT NOT NULL, expires REAL NOT NULL, device INTEGER
);
CREATE TABLE IF NOT EXISTS devices (
    number INTEGER PRIMARY KEY, class TEXT NOT NULL, public_key TEXT NOT NULL UNIQUE,
    node TEXT, enrolled REAL NOT NULL, revoked REAL
);
"""
SECRET_BYTES = 24


@dataclass(frozen=True)
class Member:
    """A device of the fleet.

    Attributes:
        number: its number, never given twice.
        device_class: its class.
        public_key: its key in OpenSSH's form.
        node: its node id at Flower; None: it is not registered there yet.
        enrolled: when, in seconds of Unix time.
        revoked: when it was turned away; None: it was not.
    """

    number: int
    device_class: str
    public_key: str
    node: int | None
    enrolled: float
    revoked: float | None


class Registry:
    """The fleet of a server; any number of processes may use it at once.

    All of it raises DataError where the database can't be used.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction that no other process writes in."""
        with self._readable():
            connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            try:
                connection.executescript(TABLES)
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()  # what was not committed is rolled back

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(f"{self._path}: the fleet can't be read or written: {error}") from error

    def invite(self, device_class: str, seconds: float) -> str:
        """Return the secret of a new token for one device of a class, good for so many seconds."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._open() as database:
            database.execute("DELETE FROM tokens WHERE expires < ? AND device IS NULL", (time.time(),))
            row = (_hash(secret), device_class, time.time() + seconds, None)
            database.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", row)
        return secret

    def admit(self, secret: str, public_key: str) -> Member:
        """Use up a token for the holder of a key, and return the device that it becomes.

        The same key with the same token gets the same device again: its first answer may have been lost.

        Raises:
            ConfigError: the token is unknown, expired or used, or the key is another device's.
        """
        with self._open() as database:
            found = database.execute(
                "SELECT class, expires, device FROM tokens WHERE hash = ?", (_hash(secret),)
            ).fetchone()
            if found is None:
                raise ConfigError("unknown token")
            device_class, expires, device = found
            if device is not None:
                member = _members(database, "number = ?", device)[0]
                if member.public_key == public_key and member.revoked is None:
                    return member
                raise ConfigError("this token is used already; each device needs its own")
            if time.time() > expires:
                raise ConfigError("this token is expired; ask for a new one")
            if _members(database, "public_key = ?", public_key):
                raise ConfigError("this key is enrolled already; a device that enrols anew makes a new one")
            (number,) = database.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM devices").fetchone()
            row = (number, device_class, public_key, None, time.time(), None)
            database.execute("INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?)", row)
            database.execute("UPDATE tokens SET device = ? WHERE hash = ?", (number, _hash(secret)))
            return _members(database, "number = ?", number)[0]

    def registered(self, number: int, node: int) -> None:
        """Note the node id of a device at Flower."""
        with self._open() as database:
            # As text: a node id is an unsigned number of 64 bits, which SQLite has not.
            database.execute("UPDATE devices SET node = ? WHERE number = ?", (str(node), number))

    def revoked(self, number: int) -> None:
        """Note that a device was turned away."""
        with self._open() as database:
            database.execute("UPDATE devices SET revoked = ? WHERE number = ?", (time.time(), number))

    def member(self, number: int) -> Member:
        """Return a device.

        Raises:
            ConfigError: there is none of that number.
        """
        with self._open() as database:
            found = _members(database, "number = ?", number)
        if not found:
            raise ConfigError(f"no device {number}; `fedstill server status` lists them")
        return found[0]

    def members(self) -> list[Member]:
        """Return all devices, revoked ones too; whoever may only read the database may call this."""
        if not self._path.exists():
            return []
        # Opened to write, where that is allowed: after a power failure the first to come has to put it in order.
        mode = "rw" if os.access(self._path, os.W_OK) else "ro"
        with (
            self._readable(),
            closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode={mode}", uri=True, timeout=60)) as database,
        ):
            made = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'devices'").fetchone()
            return _members(database, "number >= ?", 0) if made else []  # another process may be making it

    def active(self) -> list[Member]:
        """Return the devices that may take part."""
        return [member for member in self.members() if member.revoked is None and member.node is not None]

    def fleet(self) -> dict[int, str]:
        """Return the class of each device that may take part."""
        return {member.number: member.device_class for member in self.active()}

    def owners(self) -> dict[int, Owner]:
        """Return node id and class of each device that may take part."""
        return {
            member.number: Owner(member.node, member.device_class)
            for member in self.active()
            if member.node is not None
        }


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _members(database: sqlite3.Connection, condition: str, value: int | str) -> list[Member]:
    columns = "number, class, public_key, node, enrolled, revoked"
    rows = database.execute(f"SELECT {columns} FROM devices WHERE {condition} ORDER BY number", (value,))
    return [
        Member(number, kind, key, None if node is None else int(node), enrolled, revoked)
        for number, kind, key, node, enrolled, revoked in rows
    ]
