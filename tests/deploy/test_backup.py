"""A backup that is made while the server runs, and what comes out of it."""

import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing
from io import BytesIO
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


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    found = tmp_path / "here" / "keys"
    (found / "roots").mkdir(parents=True)
    (found / "root.json").touch()
    (found / "root-1.pem").touch(mode=0o600)
    return found


def backup(*folders: Path, first: str = "") -> "subprocess.CompletedProcess[bytes]":
    """Back up, in a process that begins with some lines of its own."""
    run = "import runpy, sys; runpy.run_module('deploy.backup', run_name='__main__', alter_sys=True)"
    words = [sys.executable, "-c", f"{first}\n{run}", *map(str, folders)]
    return subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, check=False)


def test_a_backup_holds_what_was_written_last_and_nothing_of_what_runs(
    server: Path, keys: Path, tmp_path: Path
) -> None:
    for name in ("lost+found", "replaced-1", "restoring-1"):
        (server / name).mkdir()
        (server / name / "old.key").touch()
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
    assert files == {*kept, "keys/root.json", "keys/root-1.pem"}
    for name in ("server/ca.key", "keys/root-1.pem", "server/delivery/telemetry.sqlite"):
        assert stat.S_IMODE((there / name).stat().st_mode) == 0o600
    with closing(sqlite3.connect(there / "server" / "delivery" / "telemetry.sqlite")) as told:
        assert told.execute("select text from reports").fetchall() == [("slow",)]


def test_both_folders_are_in_it_with_their_modes(server: Path, keys: Path, tmp_path: Path) -> None:
    for folder in (server, keys):
        folder.chmod(0o700)
    linked = tmp_path / "linked"
    linked.symlink_to(server)
    done = backup(linked, keys)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        for name in ("server", "keys"):
            assert (archive.getmember(name).isdir(), archive.getmember(name).mode) == (True, 0o700)


def test_a_folder_that_vanishes_before_it_is_looked_into_is_passed_over(
    server: Path, keys: Path, tmp_path: Path
) -> None:
    gone = server / "runs" / "first" / "run"
    # It is moved away in the moment in which the backup opens it.
    first = f"""
import os, sys
def vanish(event, arguments):
    if event == "os.scandir" and str(arguments[0]) == {str(gone)!r} and os.path.exists({str(gone)!r}):
        os.rename({str(gone)!r}, {str(tmp_path / "away")!r})
sys.addaudithook(vanish)
"""
    done = backup(server, keys, first=first)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "away").exists()
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        names = archive.getnames()
    assert "server/runs/first" in names
    assert "keys/root-1.pem" in names
    assert "server/runs/first/run/round" not in names


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_signing_keys_gives_no_backup(made: bool, server: Path, tmp_path: Path) -> None:
    if made:
        (tmp_path / "none").mkdir()
    done = backup(server, tmp_path / "none")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"no backup: ")
    assert done.stderr.count(b"\n") == 1
    assert b"no signing keys here" in done.stderr


def test_a_folder_that_is_no_server_gives_no_backup(tmp_path: Path) -> None:
    done = backup(tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"no server here" in done.stderr
