import os
import pwd
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedstill.errors import ConfigError
from fedstill.processes import Program, Supervisor, holder, script, sole
from tests.waiting import eventually

PATIENCE = 60


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@contextmanager
def supervised(folder: Path, *programs: Program) -> Iterator[None]:
    stop = threading.Event()
    supervisor = Supervisor(programs, folder, folder / "logs", folder / "run")
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def pid(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def test_a_killed_program_is_started_again_and_what_it_started_ends_with_it(tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    program = Program("sleeper", ["sh", "-c", f"sleep 1000 & echo $! > {helper}; wait"], pause=0.1)
    with supervised(tmp_path, program):
        record = tmp_path / "run" / "sleeper.pid"
        eventually(lambda: pid(record) != 0 and pid(helper) != 0)
        first, first_helper = pid(record), pid(helper)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: pid(record) not in (0, first) and pid(helper) not in (0, first_helper))
        eventually(lambda: not alive(first_helper))
        second, second_helper = pid(record), pid(helper)
        assert alive(second)
    assert not alive(second)
    eventually(lambda: not alive(second_helper))  # it was told to end; nobody waits for it
    assert not record.exists()


def test_a_program_that_ends_waits_before_it_starts_again_and_its_words_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "short.log"
    with supervised(tmp_path, Program("short", ["sh", "-c", "echo $WORD"], pause=0.05, env={"WORD": "once more"})):
        eventually(lambda: log.exists() and log.read_text().count("once more\n") >= 3)


def test_the_pause_of_a_program_whose_runs_stay_short_grows_and_is_short_again_after_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fedstill.processes.PATIENCE", 0.5)
    monkeypatch.setattr("fedstill.processes.STEADY", 2.0)
    longer = tmp_path / "longer"
    program = Program("short", ["sh", "-c", f"test ! -e {longer} || sleep 2.5"], pause=0.05, longest_pause=1.5)

    def pauses() -> list[float]:
        found = (re.search(r"starts again in (\S+) s", message) for message in caplog.messages)
        return [float(match[1]) for match in found if match]

    with supervised(tmp_path, program):
        eventually(lambda: 1.5 in pauses())
        longer.touch()
        grown = len(pauses())
        eventually(lambda: 0.05 in pauses()[grown:])
    assert pauses()[0] == 0.05
    assert any(0.05 < pause < 1.5 for pause in pauses())
    assert max(pauses()) == 1.5


def test_a_start_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[int]()
    monkeypatch.setattr("os.fsync", flushed.append)
    log = tmp_path / "logs" / "short.log"
    with supervised(tmp_path, Program("short", ["echo", "once more"], pause=0.05)):
        eventually(lambda: log.exists() and log.read_text().count("once more\n") >= 2)
    assert flushed == []


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedstill.processes.MAX_LOG", 10_000)
    log, old = tmp_path / "logs" / "talker.log", tmp_path / "logs" / "talker.log.1"
    with supervised(tmp_path, Program("talker", ["sh", "-c", "while :; do printf '%01000d\\n' 7; sleep 0.02; done"])):
        eventually(lambda: old.exists() and old.stat().st_size > 10_000)
        eventually(lambda: 0 < log.stat().st_size < 10_000)
        assert "\0" not in log.read_text()  # it goes on at the new end


def test_a_program_that_can_not_be_started_is_tried_again(tmp_path: Path) -> None:
    command = tmp_path / "later"
    with supervised(tmp_path, Program("later", [str(command)], pause=0.05), Program("other", ["sleep", "1000"])):
        other = tmp_path / "run" / "other.pid"
        eventually(lambda: pid(other) != 0)
        (tmp_path / "new").write_text("#!/bin/sh\nsleep 1000\n")
        (tmp_path / "new").chmod(0o700)
        (tmp_path / "new").rename(command)
        eventually(lambda: alive(pid(tmp_path / "run" / "later.pid")))
        assert alive(pid(other))


def test_a_program_whose_pid_can_not_be_written_runs_and_ends_with_the_others(tmp_path: Path) -> None:
    told, record = tmp_path / "told", tmp_path / "run" / "sleeper.pid"
    (record / "in the way").mkdir(parents=True)
    with supervised(tmp_path, Program("sleeper", ["sh", "-c", f"echo $$ >> {told}; exec sleep 1000"], pause=0.05)):
        eventually(lambda: told.exists() and pid(told) != 0)
        running = pid(told)
    assert not alive(running)
    assert told.read_text() == f"{running}\n"


def test_a_lock_names_its_holder_and_lets_nobody_else_in(tmp_path: Path) -> None:
    path = tmp_path / "run" / "it.lock"
    assert holder(path) is None
    with sole(path, "it"):
        assert holder(path) == os.getpid()
        with pytest.raises(ConfigError, match="it is running already"), sole(path, "it"):
            pass
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_a_command_that_is_not_installed_is_told() -> None:
    with pytest.raises(ConfigError, match="no such command"):
        script("no-such-command-of-fedstill")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of other users")
def test_a_program_of_another_user_has_neither_roots_rights_nor_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of root")
    monkeypatch.setenv("LANG", "C.UTF-8")
    user = pwd.getpwnam("daemon")
    script = (
        "id -u; id -G; grep -E 'NoNewPrivs|CapEff|CapPrm' /proc/self/status; env; nice; echo whole; exec sleep 1000"
    )
    log, record = tmp_path / "logs" / "other.log", tmp_path / "run" / "other.pid"
    with supervised(tmp_path, Program("other", ["sh", "-c", script], env={"OWN": "1"}, user="daemon", nice=5)):
        eventually(lambda: log.exists() and "whole\n" in log.read_text())
        process = pid(record)
    said = log.read_text().splitlines()
    assert said[:2] == [str(user.pw_uid), str(user.pw_gid)]
    assert [line.split()[1] for line in said[2:5]] == ["0" * 16, "0" * 16, "1"]
    assert {"OWN=1", "LANG=C.UTF-8", str(os.nice(0) + 5)} <= set(said)
    assert not any(line.startswith("SECRET=") for line in said)
    assert not alive(process)
