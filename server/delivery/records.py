"""What devices told, on disk: SQLite, so that a report is either there or not, and there before it is acknowledged.

Of each device and version the latest outcome and the latest of each measured value are kept, and only the newest
`VERSIONS` versions of a device: storage is bounded by the number of devices, which is bounded itself.
"""

import sqlite3
from pathlib import Path

from fedstill.errors import ConfigError
from server.delivery.rollout import Outcomes
from server.delivery.summary import Summary, Told, summarize
from server.delivery.telemetry import BOUNDS, FAILED, Checked

VERSIONS = 8
MAX_DEVICES = 200_000
SILENT_DAYS = 90  # after which a device makes room for another one, if there is none
_DAY = 86_400.0

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS devices (device TEXT PRIMARY KEY, sequence INTEGER NOT NULL, received REAL NOT NULL);
CREATE TABLE IF NOT EXISTS told (
  device TEXT NOT NULL, device_class TEXT NOT NULL, version INTEGER NOT NULL, received REAL NOT NULL,
  task TEXT NOT NULL, student TEXT NOT NULL, outcome INTEGER NOT NULL, detail TEXT NOT NULL,
  {", ".join(f"{name} REAL" for name in BOUNDS)},
  PRIMARY KEY (device, version)
);
CREATE INDEX IF NOT EXISTS by_version ON told (device_class, version);
"""
_COLUMNS = ("device", "device_class", "version", "received", "task", "student", "outcome", "detail", *BOUNDS)
_INSERT = (
    f"INSERT INTO told ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)}) "
    "ON CONFLICT (device, version) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:8] if name != "version")
    # What a report does not tell stays as it was told last.
    + "".join(f", {name} = COALESCE(excluded.{name}, {name})" for name in BOUNDS)
)


class FullError(Exception):
    """No report of another device can be kept; says why."""


class Records:
    """The data base of one service; to be used by one thread at a time.

    Args:
        path: its file, made if there is none.
        most: devices that are known at once.

    Raises:
        ConfigError: it can't be opened or is no data base of this kind.
    """

    def __init__(self, path: Path, most: int = MAX_DEVICES) -> None:
        self._most = most
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError(f"{path}: telemetry can't be kept here: {error}") from error

    def close(self) -> None:
        """Close the data base."""
        self._base.close()

    def add(self, report: Checked, task: str, student: str, now: float) -> int:
        """Keep a report, and return the largest sequence number of its device; one told before changes nothing.

        Args:
            report: the report.
            task: of the release that it is about.
            student: architecture of that release.
            now: seconds since the epoch by the server's clock.

        Raises:
            FullError: too many devices are known.
        """
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            known = self._base.execute("SELECT sequence FROM devices WHERE device = ?", (report.device,)).fetchone()
            if known is None:
                self._make_room(now)
            elif report.sequence <= known[0]:
                return int(known[0])
            self._base.execute(
                "INSERT INTO devices VALUES (?, ?, ?) ON CONFLICT (device) DO UPDATE SET "
                "sequence = excluded.sequence, received = excluded.received",
                (report.device, report.sequence, now),
            )
            fixed = (report.device, report.device_class, report.version, now, task, student, report.outcome)
            self._base.execute(_INSERT, (*fixed, report.detail, *(report.measured.get(name) for name in BOUNDS)))
            self._base.execute(
                "DELETE FROM told WHERE device = ? AND version NOT IN "
                "(SELECT version FROM told WHERE device = ? ORDER BY received DESC, version DESC LIMIT ?)",
                (report.device, report.device, VERSIONS),
            )
        return report.sequence

    def _make_room(self, now: float) -> None:
        if self._count() < self._most:
            return
        self._base.execute("DELETE FROM devices WHERE received < ?", (now - SILENT_DAYS * _DAY,))
        self._base.execute("DELETE FROM told WHERE device NOT IN (SELECT device FROM devices)")
        if self._count() >= self._most:
            raise FullError(f"{self._most} devices are known already, all heard of in the last {SILENT_DAYS} days")

    def _count(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM devices").fetchone()[0])

    def outcomes(self, device_class: str, version: int, since: float) -> Outcomes:
        """Return what devices told about a version since a time in seconds since the epoch."""
        rows = self._base.execute(
            "SELECT device, outcome FROM told WHERE device_class = ? AND version = ? AND received > ?",
            (device_class, version, since),
        ).fetchall()
        failed = frozenset(device for device, outcome in rows if outcome in FAILED)
        return Outcomes(failed, frozenset(device for device, _ in rows))

    def summary(self) -> Summary:
        """Return what is known by device class and version."""
        columns = ("device_class", "version", "task", "student", "outcome", *BOUNDS)
        rows = self._base.execute(f"SELECT {', '.join(columns)} FROM told ORDER BY device_class, version")
        return summarize(Told(**dict(zip(columns, row, strict=True))) for row in rows)


def read_summary(path: Path) -> Summary:
    """Return what a service's data base says, while the service may be writing to it.

    Raises:
        ConfigError: it can't be read.
    """
    if not path.exists():
        return Summary()
    records = Records(path)
    try:
        return records.summary()
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: telemetry can't be read: {error}") from error
    finally:
        records.close()
