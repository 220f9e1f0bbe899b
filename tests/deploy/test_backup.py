"""A backup that is made while the server runs, and what comes out of it."""

import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest


@pytest.fixture
def server(tmp_path: Path) -> Path:
    found = tmp_path / "here" / "server"
    for name in ("delivery", "run", "logs", "runs/first/run"):
        (found / name).mkdir(parents=True)
    for name in ("server.toml", "run/server.lock", "logs/superlink.log", "runs/first/run/round"):
        (found / name).write_text(name)
    (found / "ca.key").touch(mode=0o600)
    return found


def backup(*folders: Path) -> "subprocess.CompletedProcess[bytes]":
    words = [sys.executable, "-m", "deploy.backup", *map(str, folders)]
    return subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, check=False)


def test_a_backup_holds_what_was_written_last_and_nothing_of_what_runs(server: Path, tmp_path: Path) -> None:
    keys = tmp_path / "here" / "keys"
    keys.mkdir()
    (keys / "root-1.pem").touch(mode=0o600)
    with closing(sqlite3.connect(server / "delivery" / "telemetry.sqlite")) as told:
        told.execute("pragma journal_mode=wal")
        told.execute("create table reports (text)")
        told.execute("insert into reports values ('slow')")
        told.commit()  # it is in the file beside the database
        done = backup(server, keys)
    assert done.returncode == 0, done.stderr.decode()
    (tmp_path / "backup.tar").write_bytes(done.stdout)
    with tarfile.open(tmp_path / "backup.tar") as archive:
        archive.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there"
    files = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    kept = {"server/server.toml", "server/ca.key", "server/delivery/telemetry.sqlite", "server/runs/first/run/round"}
    assert files == {*kept, "keys/root-1.pem"}
    for name in ("server/ca.key", "keys/root-1.pem", "server/delivery/telemetry.sqlite"):
        assert stat.S_IMODE((there / name).stat().st_mode) == 0o600
    with closing(sqlite3.connect(there / "server" / "delivery" / "telemetry.sqlite")) as told:
        assert told.execute("select text from reports").fetchall() == [("slow",)]


def test_a_folder_that_is_no_server_gives_no_backup(tmp_path: Path) -> None:
    done = backup(tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"no server here" in done.stderr
