from pathlib import Path

import pytest
from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from sqlalchemy import MetaData, text

from server.deployment.superlink import WAIT, be_patient


class Database(sql_mixin.SqlMixin):
    """Flower's way to a database, with nothing in it."""

    def get_metadata(self) -> MetaData | None:
        return None


def test_a_request_waits_for_the_database_nearly_as_long_as_a_device_for_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", SQLITE_PRAGMAS)  # put back afterwards
    monkeypatch.setattr(sql_mixin, "run_migrations", lambda engine: None)
    be_patient()
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    database.initialize()
    with database.session() as session:
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 1000 * WAIT
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"  # the others are as they were
