"""Keep programs running: start them, start them again when they end, and end them together.

Each program leads a process group of its own, so that the processes which it started end with it, and each ends when
the supervisor does, however that ends.
"""

import ctypes
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedstill.errors import ConfigError, FedstillError
from fedstill.files import write_atomic

log = logging.getLogger("fedstill")
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
GRACE = 15.0
"""Seconds that a program has to end before it is killed."""
POLL = 0.2
STEADY = 60.0
"""Seconds beyond which a run counts as one that went well."""
PATIENCE = 90.0
"""Seconds of short runs during which a pause that may grow does not."""
MAX_LOG = 10 * 1024 * 1024
"""Bytes of a log beyond which it begins anew; the last one is kept beside it."""
HANDED_ON = re.compile(r"LANG|LC_.*|TZ|PYTHONPATH|FLWR_.*|ORT_.*|GRPC_.*|.*_NUM_THREADS|RAY_USAGE_STATS_ENABLED")
"""Names in the environment that a program of another user is handed on: root's may hold secrets."""


@dataclass(frozen=True)
class Program:
    """A program to keep running.

    Attributes:
        name: of its log and its pid file.
        command: its arguments.
        pause: seconds between its end and its next start.
        env: added to the environment.
        user: system user to run as, with the group of the same name alone; it then gets of this process's environment
            only what `HANDED_ON` says. Empty: this process's user. Only root can start programs of others.
        nice: added to its niceness, 0 to 19.
        longest_pause: seconds to which `pause` grows while no run lasts longer than `STEADY`: after `PATIENCE` it is
            the time since, which doubles it from start to start. 0: it stays as it is.
    """

    name: str
    command: Sequence[str]
    pause: float = 1.0
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    nice: int = 0
    longest_pause: float = 0.0


def script(name: str) -> str:
    """Return the path of a command that is installed beside this Python.

    Raises:
        ConfigError: it is not there.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.is_file():
        raise ConfigError(f"{path}: no such command; install the extra that brings Flower")
    return str(path)


def search_path() -> str:
    """Return the PATH on which a program finds the commands that are installed beside this Python, and the rest."""
    return f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python; the working directory is no place to import from."""
    return [sys.executable, "-P", "-m", name, *arguments]


@contextmanager
def sole(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file with this process's id in it; the lock ends with the process, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{what} is running already ({path})") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)


def holder(path: Path) -> int | None:
    """Return the id of the process that holds a lock file; None: nobody does."""
    try:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(file.read())
    except (OSError, ValueError):
        pass
    return None


class Supervisor:
    """Keeps programs running until it is told to stop.

    Args:
        programs: in the order in which they start; they end in the opposite one.
        folder: where they run.
        logs: where what they say goes.
        pids: where their process ids lie.
    """

    def __init__(self, programs: Sequence[Program], folder: Path, logs: Path, pids: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._logs = logs
        self._pids = pids
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._due = dict.fromkeys((program.name for program in programs), 0.0)
        self._began: dict[str, float] = {}
        self._unsteady: dict[str, float] = {}  # since when

    def run(self, stop: threading.Event) -> None:
        """Keep them running until `stop` is set, then end them."""
        for folder in (self._folder, self._logs, self._pids):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            while not stop.wait(POLL):
                for program in self._programs:
                    self._look_after(program)
        finally:
            self._end()

    def _look_after(self, program: Program) -> None:
        running = self._running.get(program.name)
        now = time.monotonic()
        if running is not None:
            code = running.poll()
            if code is None:
                _shorten(self._log(program))
                return
            _signal(running, signal.SIGKILL)  # what it started must not outlive it
            del self._running[program.name]
            pause = self._postpone(program, now)
            log.warning("%s ended with code %d; it starts again in %.3g s", program.name, code, pause)
        elif now >= self._due[program.name]:
            self._began[program.name] = now
            try:
                self._start(program)
            except OSError as error:  # a full disk, no memory: the device is to come back when that is over
                pause = self._postpone(program, now)
                log.error("%s can't be started: %s; trying again in %.3g s", program.name, error, pause)

    def _postpone(self, program: Program, now: float) -> float:
        """Set when a program that ended starts again, and return the seconds until then."""
        name, began = program.name, self._began[program.name]
        if now - began > STEADY:
            self._unsteady[name] = now
        unsteady = now - self._unsteady.setdefault(name, began)
        pause = max(program.pause, min(unsteady - PATIENCE, program.longest_pause))
        self._due[name] = now + pause
        return pause

    def _log(self, program: Program) -> Path:
        return self._logs / f"{program.name}.log"

    def _start(self, program: Program) -> None:
        path = self._log(program)
        _shorten(path)
        kept = {name: value for name, value in os.environ.items() if not program.user or HANDED_ON.fullmatch(name)}
        with path.open("ab") as output:
            started = subprocess.Popen(
                program.command,
                cwd=self._folder,
                env={**kept, "PATH": search_path(), "PYTHONUNBUFFERED": "1", **program.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_prepare, program),
                user=program.user or None,
                group=program.user or None,
                extra_groups=[] if program.user else None,
            )
        self._running[program.name] = started
        log.info("%s started, process %d", program.name, started.pid)
        try:
            write_atomic(self._pids / f"{program.name}.pid", f"{started.pid}\n".encode(), durable=False)
        except OSError as error:  # a full disk: what runs is worth more than its process id
            log.warning("%s runs, but its process id can't be written: %s", program.name, error)

    def _end(self) -> None:
        for program in reversed(self._programs):
            running = self._running.pop(program.name, None)
            if running is None:
                continue
            _signal(running, signal.SIGTERM)
            try:
                running.wait(GRACE)
            except subprocess.TimeoutExpired:
                log.warning("%s does not end; killing it", program.name)
            _signal(running, signal.SIGKILL)
            running.wait()
            with suppress(OSError):
                (self._pids / f"{program.name}.pid").unlink()


def _shorten(log_file: Path) -> None:
    """Let a long log begin anew: a program appends to it, so that it goes on at the new end."""
    with suppress(OSError):
        if log_file.stat().st_size > MAX_LOG:
            with suppress(OSError):  # a full disk takes no copy, and gains by what follows
                shutil.copyfile(log_file, log_file.with_suffix(".log.1"))
            os.truncate(log_file, 0)


def _prepare(program: Program) -> None:
    """Prepare a started process, which is its user's already: a change of users forgets the signal."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if program.nice:
        os.nice(program.nice)
    if program.user:  # no set-user-id program, such as sudo, makes it another's
        _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _signal(running: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a program and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(running.pid, number)


def run_service(run: Callable[[Path], None]) -> int:
    """Run a service for the folder that the command line names until it ends, and return its exit code.

    What goes wrong is told in one line.
    """
    try:
        run(Path(sys.argv[1]).resolve())
    except (FedstillError, OSError) as error:
        print(f"fedstill: {error}", file=sys.stderr)
        return 2
    return 0


def stopped_by_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
