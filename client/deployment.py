"""`fedstill client enroll | start | stop | doctor`."""

import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.home import DeviceConfig, Home, find_home
from fedstill.errors import ConfigError
from fedstill.processes import Supervisor, holder, sole, stopped_by_signals

Folder = Annotated[
    Path | None,
    # An installed device's folder can't be read by everybody; what that means, the commands say.
    typer.Option("--home", help="The device's folder; default: FEDSTILL_HOME or the user's own.", readable=False),
]
STOP_SECONDS = 60.0
NOT_ISOLATED = (
    "isolation is off: all processes run as this user, so an app that the server sends could read this device's data "
    "and keys; keep to a server that you trust, or `sudo fedstill client install`"
)
ISOLATED = "isolation is on: the agent runs as {agent}, the SuperNode as {node}, what the server sends as {app}"


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def enroll(
    token: Annotated[str, typer.Argument(help="The line that `fedstill server token` printed.")],
    home: Folder = None,
    data: Annotated[Path | None, typer.Option(help="Description of this device's data, data.toml.")] = None,
    proxy: Annotated[Path | None, typer.Option(help="The server's proxy set, a .npy file.")] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Loopback port of Flower's processes, one per device.")
    ] = 9094,
) -> None:
    """Become a device of a server: make a key, and let the server register it."""
    # Imported here, as in the other commands: whoever only predicts is to have none of it in memory.
    from client.data import read_description
    from client.enrol import enrol
    from client.probe import look, misfit

    if data is not None:
        read_description(data)
    if proxy is not None and not proxy.is_file():
        raise ConfigError(f"{proxy}: no such file")
    own = find_home(home)
    config = enrol(own, token, data=data, proxy=proxy, port=port, tell=_say)
    _say(f"enrolled: device {config.number} of class {config.device_class} at {config.superlink}")
    if weaker := misfit(look(), config.device_class):
        _say(f"warning: {weaker}; if it can't keep up, remove {own.folder} and enrol with a token of that class")
    for name in _needed(config):
        if not getattr(config, name):
            _say(f"missing: {name}; name its path in {own.config_path}")
    _say("next: fedstill client start")


def start(home: Folder = None) -> None:
    """Run the agent and Flower's SuperNode until Ctrl-C; what ends is started again."""
    from client.install.layout import read_users
    from client.limits import read_limits
    from client.probe import check_machine
    from client.programs import programs
    from client.timekeeping import keep_time, wait_for_clock

    own = find_home(home)
    check_machine()
    users = read_users(own)
    wanted = programs(own, users, read_limits(own).nice)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    own.run.mkdir(parents=True, exist_ok=True, mode=0o750)
    with sole(own.run / "client.lock", f"the device in {own.folder}"):
        _say(f"device in {own.folder}; logs in {own.logs}; Ctrl-C ends it")
        _say(NOT_ISOLATED if users is None else ISOLATED.format(**users.model_dump()))
        own.make_secret()  # one that was enrolled before there was any
        stop = stopped_by_signals()
        wait_for_clock(own, stop)
        threading.Thread(target=keep_time, args=(own, stop), daemon=True).start()
        Supervisor(wanted, own.folder, own.logs, own.run).run(stop)


def stop(home: Folder = None) -> None:
    """End what `fedstill client start` keeps running."""
    from client.install.system import serves, stop_service
    from client.status import check_may_look

    own = find_home(home)
    check_may_look(own)
    if serves(own):
        stop_service()
        _say("stopped; it starts again at the next boot, or by `sudo systemctl start fedstill-client`")
        return
    lock = own.run / "client.lock"
    process = holder(lock)
    if process is None:
        raise ConfigError(f"{own.folder}: the device is not running")
    try:
        os.kill(process, signal.SIGTERM)
    except PermissionError as error:
        raise ConfigError(f"{own.folder}: process {process} is another user's") from error
    deadline = time.monotonic() + STOP_SECONDS
    while holder(lock) is not None:
        if time.monotonic() > deadline:
            raise ConfigError(f"process {process} does not end; see {own.logs}")
        time.sleep(0.2)
    _say("stopped")


def doctor(home: Folder = None) -> None:
    """Say what this machine is, which device class fits it and why, and what stands in the way: exit code 1 then."""
    from client.probe import look, misfit, propose, providers, telling, troubles
    from client.status import check_may_look

    machine = replace(look(), providers=providers())
    packages = ", ".join(f"{name} {found}" for name, found in machine.packages.items())
    _say(f"machine: {machine.model}, {machine.architecture}, {machine.cores} cores, {machine.memory_mb} MB")
    if machine.emulated:
        _say("emulated: times measured here are no board's, and none are told to the server")
    _say(f"cores with: {', '.join(telling(machine)) or 'no int8 or wide vector instructions'}")
    _say(f"system: {machine.system}, {machine.bits} bits")
    _say(f"installed: {packages}")
    _say(f"ONNX Runtime on: {', '.join(machine.providers or ()) or 'nothing'}")
    proposal = propose(machine)
    _say(f"class: {proposal.device_class or 'none'}: {proposal.reason}")
    found = troubles(machine)
    own = find_home(home)
    if own.config_path.exists():
        check_may_look(own)
        config = own.config()
        _say(f"device: {config.number} of class {config.device_class} at {config.superlink}")
        _say(f"running: {'yes' if holder(own.run / 'client.lock') is not None else 'no'}")
        if weaker := misfit(machine, config.device_class):
            _say(f"warning: {weaker}")
        found += _missing(own, config)
        found += _server(own, config)
    else:
        _say("device: not enrolled")
    for trouble in found:
        _say(f"trouble: {trouble}")
    if found or not proposal.device_class:
        raise typer.Exit(1)


def _needed(config: DeviceConfig) -> tuple[str, ...]:
    """Return the files that a device has to be given: a delivery service has the proxy set."""
    return ("data",) if config.delivery else ("data", "proxy")


def _missing(home: Home, config: DeviceConfig) -> list[str]:
    """Return what an enrolled device lacks."""
    from client.data import lacking, read_description

    found = []
    for name in ("data", "proxy"):
        path = getattr(config, name)
        if not path and name not in _needed(config):
            continue
        if not path:
            found.append(f"no {name}; name its path in {home.config_path}")
        elif not Path(path).is_file():
            found.append(f"{name}: {path}: no such file")
    if config.data and Path(config.data).is_file():
        try:
            description = read_description(Path(config.data))
            found += [f"{config.data}: {hint}" for hint in lacking(description.format)]
        except ConfigError as error:
            found.append(str(error))
    if not home.key.exists():
        found.append(f"{home.key}: the device's key is gone; remove {home.folder} and enrol anew")
    elif home.key.stat().st_mode & 0o077:
        found.append(f"{home.key}: this private key is open to others; chmod 600 it")
    return found


def _server(home: Home, config: DeviceConfig) -> list[str]:
    """Say how a device's server is reached, and return what is wrong with that."""
    from client.reach import reach

    try:
        found = reach(home, config)
    except ConfigError as error:
        return [str(error)]
    _say(f"server: reached; {found.clock}")
    return [found.trouble] if found.trouble else []


def add(client: typer.Typer) -> None:
    """Add these commands."""
    for command in (enroll, start, stop, doctor):
        client.command()(command)
