"""What a backup brings back, over a server that went on since; and the commands for it that operators are told."""

import fcntl
import io
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.deployment import PATIENCE, command, eventually, fedstill, free_ports, listens

ROOT = Path(__file__).parents[2]
DATABASES = ("fleet.db", "superlink.db", "delivery/telemetry.sqlite")
GO_ON = """
import os, signal, sqlite3, sys
for path in sys.argv[3:]:
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode=wal")
    database.execute("create table if not exists devices (name, filler)")
    database.execute("insert into devices values (?, zeroblob(20000))", [sys.argv[1]])
    database.commit()
    if sys.argv[2] == "checkpoint":
        database.execute("pragma wal_checkpoint(truncate)")
        database.execute("insert into devices values ('later', zeroblob(20000))")
        database.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Writes to databases, and leaves the files beside them as a SuperLink does."""


class Installation:
    """A server's folder and its keys, with databases that processes write to."""

    def __init__(self, folder: Path) -> None:
        self.server, self.keys = folder / "server", folder / "keys"

    def make(self) -> None:
        for name in ("delivery", "runs/first", "run", "logs"):
            (self.server / name).mkdir(parents=True)
        (self.keys / "roots").mkdir(parents=True)
        for path in (self.server / "server.toml", self.keys / "root.json", self.server / "runs" / "first" / "round"):
            path.write_text("before")
        (self.keys / "root-1.pem").touch(mode=0o600)
        self.go_on("before")

    def go_on(self, name: str, *, checkpoint: bool = False) -> None:
        """Let a device enrol, with a process that is killed."""
        paths = [str(self.server / database) for database in DATABASES]
        words = [sys.executable, "-c", GO_ON, name, "checkpoint" if checkpoint else "", *paths]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        assert (self.server / "superlink.db-wal").stat().st_size > 0

    def devices(self) -> list[str]:
        """Return what all databases hold, read as by a process that starts."""
        found = []
        for name in DATABASES:
            with closing(sqlite3.connect(self.server / name)) as database:
                assert database.execute("pragma integrity_check").fetchone() == ("ok",)
                found.append([name for (name,) in database.execute("select name from devices")])
        assert all(one == found[0] for one in found), found
        return found[0]

    def files(self) -> set[str]:
        """Return what is there, without what SQLite may leave, what passes, and what a restore set aside."""
        passing = re.compile(r"(server/(run|logs)|.*/replaced-[^/]*)(/.*)?|.*-(wal|shm)")
        found = (str(path.relative_to(self.server.parent)) for path in self.server.parent.rglob("*"))
        return {name for name in found if not passing.fullmatch(name)}

    def backup(self) -> bytes:
        words = [sys.executable, "-m", "deploy.backup", str(self.server), str(self.keys)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout

    def restore(self, archive: bytes) -> "subprocess.CompletedProcess[bytes]":
        words = [sys.executable, "-m", "deploy.restore", str(self.server), str(self.keys)]
        return subprocess.run(words, cwd=ROOT, input=archive, capture_output=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    found = Installation(tmp_path / "here")
    found.make()
    return found


def refused(done: "subprocess.CompletedProcess[bytes]", why: str) -> None:
    assert done.returncode == 2
    assert done.stdout == b""
    *_, last = done.stderr.decode().splitlines()  # before it tar's own lines
    assert last.startswith("no restore: ")
    assert why in last


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_server_that_went_on_is_as_it_was_at_its_backup(checkpoint: bool, installed: Installation) -> None:
    archive, files = installed.backup(), installed.files()
    installed.go_on("after", checkpoint=checkpoint)
    (installed.server / "draining").touch()
    (installed.server / "runs" / "first" / "round").write_text("after")
    (installed.keys / "root-1.pem").unlink()
    (installed.keys / "root-2.pem").touch()
    done = installed.restore(archive)
    assert done.returncode == 0, done.stderr.decode()
    assert installed.devices() == ["before"]
    assert installed.files() == files
    assert (installed.server / "runs" / "first" / "round").read_text() == "before"


def test_what_was_there_is_set_aside_and_in_no_later_backup(installed: Installation) -> None:
    archive = installed.backup()
    installed.go_on("after")
    (installed.keys / "root-2.pem").write_text("new")
    told = installed.restore(archive).stdout.decode()
    aside = [Path(found) for found in re.findall(r"^what was there is in (.+): ", told, re.MULTILINE)]
    assert [path.parent for path in aside] == [installed.server, installed.keys]
    assert {stat.S_IMODE(path.stat().st_mode) for path in aside} == {0o700}
    with closing(sqlite3.connect(aside[0] / "superlink.db")) as database:
        assert database.execute("select name from devices").fetchall() == [("before",), ("after",)]
    assert (aside[1] / "root-2.pem").read_text() == "new"
    with tarfile.open(fileobj=io.BytesIO(installed.backup())) as later:
        assert not [name for name in later.getnames() if "replaced-" in name]
    assert installed.restore(archive).returncode == 0
    assert all(path.exists() for path in aside)


def test_on_a_machine_without_a_server_both_folders_are_their_owners_alone(
    installed: Installation, tmp_path: Path
) -> None:
    archive = installed.backup()  # of folders that are open
    new = Installation(tmp_path / "new")
    assert new.restore(archive).returncode == 0
    for folder in (new.server, new.keys):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((new.keys / "root-1.pem").stat().st_mode) == 0o600
    assert new.files() == installed.files()
    assert new.devices() == ["before"]


def test_folders_that_can_not_be_renamed_are_restored(installed: Installation) -> None:
    """As volumes are, whose file systems may also have a folder of their own."""
    archive = installed.backup()
    before = [folder.stat().st_ino for folder in (installed.server, installed.keys)]
    for folder in (installed.server, installed.keys):
        (folder / "lost+found").mkdir()
    assert installed.restore(archive).returncode == 0
    assert [folder.stat().st_ino for folder in (installed.server, installed.keys)] == before
    assert (installed.server / "lost+found").is_dir()


def test_over_a_server_that_runs_nothing_is_restored(installed: Installation) -> None:
    archive = installed.backup()
    with (installed.server / "run" / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(installed.restore(archive), "is running already")
    with closing(sqlite3.connect(installed.server / "superlink.db")) as database:
        database.execute("select * from devices").fetchall()  # a container's process has it open
        refused(installed.restore(archive), "superlink.db is in use")
    assert installed.restore(archive).returncode == 0


def damaged(archive: bytes, name: str) -> bytes:
    """Return an archive without a file, or with a database whose pages are another file's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            if member.name == name and name.endswith(".db"):
                content = content[:4096] + os.urandom(len(content) - 4096)
            elif member.name == name:
                continue
            new.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("server/server.toml", "the archive has no server/server.toml"),
        ("keys/root.json", "the archive has no keys/root.json"),
        ("server/superlink.db", "superlink.db in the archive is damaged"),
        ("", "can't be unpacked"),
    ],
)
def test_an_archive_that_is_not_whole_changes_nothing(name: str, why: str, installed: Installation) -> None:
    archive = installed.backup()
    broken = damaged(archive, name) if name else archive[: len(archive) // 2 + 100]
    installed.go_on("after")
    before = installed.files()
    refused(installed.restore(broken), why)
    assert installed.files() == before
    assert installed.devices() == ["before", "after"]


def test_folders_of_something_else_are_left_alone(installed: Installation, tmp_path: Path) -> None:
    archive, other = installed.backup(), Installation(tmp_path / "other")
    other.server, other.keys = installed.keys, installed.server
    before = installed.files()
    refused(other.restore(archive), "something else is here (server.toml is missing)")
    assert installed.files() == before


@pytest.mark.deploy
@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("only", [("--only", "superlink"), ()])
def test_a_real_server_is_restored_when_it_has_ended_and_starts_again(only: tuple[str, ...], tmp_path: Path) -> None:
    own = Installation(tmp_path / "own")
    ports = dict(zip(("--port", "--enrolment-port", "--delivery-port"), map(str, free_ports(3)), strict=True))
    words = [part for pair in ports.items() for part in pair]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSTILL_KEYS", str(own.keys))
        fedstill("server", "init", "--host", "localhost", "--home", str(own.server), *words)
    archive = b""
    for _ in range(2):
        with (tmp_path / "out").open("ab") as out:
            start = command("server", "start", "--home", str(own.server), *only)
            running = subprocess.Popen(start, stdout=out, stderr=out)
        try:
            eventually(lambda: listens(int(ports["--port"])), "the SuperLink")
            archive = archive or own.backup()
            refused(own.restore(archive), "superlink.db is in use" if only else "is running already")
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(PATIENCE)
        assert own.restore(archive).returncode == 0


def shell(about: str) -> list[str]:
    """Return the blocks of shell lines of the operator's page that have a text in them."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return [block for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if about in block]


def test_the_documented_lines_back_up_and_restore_processes(installed: Installation, tmp_path: Path) -> None:
    environment = {**os.environ, "FEDSTILL_SERVER": str(installed.server), "FEDSTILL_KEYS": str(installed.keys)}
    environment["PYTHONPATH"] = str(ROOT)

    def call(module: str) -> "subprocess.CompletedProcess[str]":
        (block,) = shell(f"/opt/fedstill/bin/python -m {module}")
        lines = block.replace("/opt/fedstill/bin/python", sys.executable).replace("backup/DAY.tar", "backup/*.tar")
        words = ["bash", "-euc", lines]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    environment["FEDSTILL_KEYS"] = str(tmp_path / "none")
    assert call("deploy.backup").returncode != 0
    assert not list((tmp_path / "backup").glob("*.tar"))
    environment["FEDSTILL_KEYS"] = str(installed.keys)
    done = call("deploy.backup")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "backup").iterdir())) == 1
    installed.go_on("after")
    done = call("deploy.restore")
    assert done.returncode == 0, done.stderr
    assert installed.devices() == ["before"]


def test_the_documented_pod_that_restores_is_valid_and_has_the_servers_volumes() -> None:
    (block,) = shell("kind: Pod")
    (text,) = re.findall(r"<<END\n(.*?)^END$", block, re.MULTILINE | re.DOTALL)
    pod: dict[str, Any] = yaml.safe_load(text)
    kubernetes_validate.validate(pod, "1.35", strict=True)
    found = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes/server.yaml").read_text())}
    server = found["StatefulSet"]["spec"]["template"]["spec"]
    admin = next(one for one in server["containers"] if one["name"] == "admin")
    (own,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"] == server["securityContext"]
    assert (own["image"], own["command"]) == (admin["image"], admin["command"])
    assert own["securityContext"].items() <= {**admin["securityContext"], "readOnlyRootFilesystem": True}.items()
    mounts = [mount for mount in admin["volumeMounts"] if mount["name"] in ("server", "keys")]
    assert own["volumeMounts"] == mounts
    assert pod["spec"]["volumes"] == [one for one in server["volumes"] if one["name"] in ("server", "keys")]


def test_a_renewed_certificate_comes_into_the_cluster_with_the_files_that_were_in_its_secret() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("server.md", "operations.md")]
    called = [re.findall(r"^kubectl create secret (?:.*\\\n)*.*", page, re.MULTILINE) for page in pages]
    assert [len(found) for found in called] == [1, 1]
    first, again = (set(re.findall(r"--from-file=(\S+)", found[0])) for found in called)
    assert "server/server.crt" in first
    assert again == first
