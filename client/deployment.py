"""`fedstill client enroll | start | stop | doctor`."""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.data import read_description
from client.enrol import enrol
from client.home import Home, default_home
from client.programs import programs
from fedstill.errors import ConfigError
from fedstill.processes import Supervisor, holder, sole, stopped_by_signals

Folder = Annotated[
    Path | None, typer.Option("--home", help="The device's folder [default: FEDSTILL_CLIENT or the user's own].")
]
STOP_SECONDS = 60.0
NOT_ISOLATED = (
    "isolation is off: all processes run as this user, so an app that the server sends could read this device's data "
    "and keys; keep to a server that you trust"
)


def _home(folder: Path | None) -> Home:
    return Home((folder or default_home()).resolve())


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def enroll(
    token: Annotated[str, typer.Argument(help="The line that `fedstill server token` printed.")],
    home: Folder = None,
    data: Annotated[Path | None, typer.Option(help="Description of this device's data, data.toml.")] = None,
    proxy: Annotated[Path | None, typer.Option(help="The server's proxy set, a .npy file.")] = None,
    port: Annotated[int, typer.Option(help="Loopback port of Flower's processes, one per device.")] = 9094,
) -> None:
    """Become a device of a server: make a key, and let the server register it."""
    if data is not None:
        read_description(data)
    if proxy is not None and not proxy.is_file():
        raise ConfigError(f"{proxy}: no such file")
    own = _home(home)
    config = enrol(own, token, data=data, proxy=proxy, port=port)
    _say(f"enrolled: device {config.number} of class {config.device_class} at {config.superlink}")
    for name in ("data", "proxy"):
        if not getattr(config, name):
            _say(f"missing: {name}; name its path in {own.config_path}")
    _say("next: fedstill client start")


def start(home: Folder = None) -> None:
    """Run the agent and Flower's SuperNode until Ctrl-C; what ends is started again."""
    own = _home(home)
    wanted = programs(own)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with sole(own.run / "client.lock", f"the device in {own.folder}"):
        _say(f"device in {own.folder}; logs in {own.logs}; Ctrl-C ends it")
        _say(NOT_ISOLATED)
        Supervisor(wanted, own.folder, own.logs, own.run).run(stopped_by_signals())


def stop(home: Folder = None) -> None:
    """End what `fedstill client start` keeps running."""
    own = _home(home)
    lock = own.run / "client.lock"
    process = holder(lock)
    if process is None:
        raise ConfigError(f"{own.folder}: the device is not running")
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while holder(lock) is not None:
        if time.monotonic() > deadline:
            raise ConfigError(f"process {process} does not end; see {own.logs}")
        time.sleep(0.2)
    _say("stopped")


def add(client: typer.Typer) -> None:
    """Add these commands."""
    for command in (enroll, start, stop):
        client.command()(command)
