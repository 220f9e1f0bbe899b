"""`fedstill server init | start | token | revoke | run | drain | status | certificate`."""

import ipaddress
import json
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tomli_w
import typer
from rich.console import Console
from rich.table import Table

from fedstill.device_classes import BUDGETS
from fedstill.errors import ConfigError
from fedstill.files import write_atomic, write_private
from fedstill.invitation import Invitation
from fedstill.processes import Supervisor, sole, stopped_by_signals
from server.delivery.logs import begin_log
from server.deployment.certificates import fingerprint, last_day, make_certificates, renew
from server.deployment.control import Control
from server.deployment.home import ServerConfig, ServerHome, default_home
from server.deployment.programs import become, programs
from server.deployment.runs import Runs
from server.enrolment.registry import Registry
from server.release.home import default_folder as default_keys
from server.release.keys import ROOT, open_keys

Folder = Annotated[
    Path | None, typer.Option("--home", help="The server's folder; default: FEDSTILL_SERVER or the user's own.")
]
SECRET_BYTES = 32
UNITS = {"m": 60, "h": 3600, "d": 86400}
GONE = "unregistered"
"""What Flower calls a SuperNode that it turns away."""


def _home(folder: Path | None) -> ServerHome:
    return ServerHome((folder or default_home()).resolve())


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def _expect_host(host: str) -> None:
    """Make sure that this is a host's name or address.

    Raises:
        ConfigError: it is neither.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", host):
        return
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise ConfigError(f"--host {host}: not a name or an address, which has no port and no path") from error


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 30m, 1h or 7d.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([mhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is no duration; for example 30m, 1h or 7d")
    return float(found[1]) * UNITS[found[2]]


def init(
    host: Annotated[str, typer.Option(help="Name or address by which devices reach this server.")],
    home: Folder = None,
    listen: Annotated[str, typer.Option(help="Address that the SuperLink listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the SuperLink.")] = 8000,
    public_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the proxy before it; 0: none.")] = 0,
    enrolment_listen: Annotated[str, typer.Option(help="Address that the enrolment service listens on.")] = "0.0.0.0",
    enrolment_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the enrolment service.")] = 8001,
    delivery_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the delivery service.")] = 8002,
) -> None:
    """Make a server: an authority, certificates, keys and configuration."""
    _expect_host(host)
    own = _home(home)
    if own.folder.exists() and any(own.folder.iterdir()):
        raise ConfigError(f"{own.folder}: something is here already; give another --home")
    config = ServerConfig(
        host=host,
        listen=listen,
        port=port,
        public_port=public_port,
        enrolment_listen=enrolment_listen,
        enrolment_port=enrolment_port,
        delivery_port=delivery_port,
    )
    root = open_keys(default_keys()).trust.content
    try:
        own.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own.folder.chmod(0o700)  # an empty one may have been there; databases come into it
        names = dict.fromkeys([host, *([] if listen in ("0.0.0.0", "::") else [listen])])
        make_certificates(own.folder, tuple(names))
        (own / "store").mkdir()
        write_atomic(own / ROOT, root)
        write_private(own / "superexec.secret", secrets.token_hex(SECRET_BYTES).encode())
        # Last: a folder without it is no server yet.
        write_atomic(own / "server.toml", tomli_w.dumps(config.model_dump()).encode())
    except OSError as error:
        raise ConfigError(f"{own.folder}: {error.strerror}; give another --home") from error
    _say(f"made: {own.folder}")
    places = f"the SuperLink at {config.superlink}, enrolment at {config.enrolment}, delivery at {config.delivery}"
    _say(f"devices reach {places}")
    if listen not in ("127.0.0.1", "::1", "localhost"):
        _say(
            f"warning: on {listen}:{port} the control API is as open as the devices' own: who reaches it can start "
            "code on them; let a proxy pass /v1/fleet/ alone, or keep the port to a network of your own"
        )
    _say("next: fedstill server start")


def start(
    home: Folder = None,
    only: Annotated[
        str, typer.Option(help="Be only this one of them, for a container of its own: superlink, delivery...")
    ] = "",
) -> None:
    """Run SuperLink, superexec, enrolment and delivery service until Ctrl-C; what ends is started again."""
    own = _home(home)
    if only:
        become(own, only)
    wanted = programs(own)
    begin_log(as_json=own.config().json_logs)
    with sole(own / "run" / "server.lock", f"the server in {own.folder}"):
        _say(f"server in {own.folder}; logs in {own / 'logs'}; Ctrl-C ends it")
        Supervisor(wanted, own.folder, own / "logs", own / "run").run(stopped_by_signals())


def token(
    device_class: Annotated[str, typer.Option("--class", help="Class of the device, for example pi4.")],
    expires: Annotated[str, typer.Option(help="How long it is good: 30m, 1h, 7d.")] = "1h",
    home: Folder = None,
) -> None:
    """Print a token that enrols one device, once."""
    own = _home(home)
    config = own.config()
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", device_class) is None:
        raise ConfigError(f"--class {device_class}: a class is a short word such as pi4")
    secret = Registry(own / "fleet.db").invite(device_class, seconds_of(expires))
    if device_class not in BUDGETS:  # beside the token, which may be read by a script; a scenario may have the class
        known = ", ".join(BUDGETS)
        typer.echo(
            f"warning: class {device_class} is not built in ({known}); with such a device, only scenarios that have a "
            "student for it can run",
            err=True,
        )
    print(Invitation(config.enrolment, fingerprint((own / "ca.crt").read_bytes()), secret).encode())


def revoke(number: Annotated[int, typer.Argument(help="The device's number.")], home: Folder = None) -> None:
    """Turn a device away from now on; to come back it enrols with a new token."""
    own = _home(home)
    own.config()
    registry, control = Registry(own / "fleet.db"), Control(own)
    member = registry.member(number)
    node = control.node_of(member.public_key) if member.node is None else member.node
    if member.revoked is not None and (node is None or control.nodes().get(node, GONE) == GONE):
        raise ConfigError(f"device {number} is revoked already")
    # Noted first: no run that begins from now on believes it, and what fails after this can be done again.
    registry.revoked(number)
    if node is not None:
        control.unregister(node)
    _say(f"revoked: device {number}")


def run(
    scenario: Annotated[str, typer.Argument(help="Built-in scenario or path of a scenario file.")] = "",
    home: Folder = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: in the server's folder.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder from its last round.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and don't wait.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Parquet files of the scenario's data, laid out as on the Hugging Face hub.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
) -> None:
    """Run a scenario on the enrolled devices, and tell its rounds."""
    own = _home(home)
    own.config()
    if bool(scenario) == bool(resume):
        raise ConfigError("give a scenario, or --resume with the folder of a run")
    if resume and (out or data_dir or assignments):
        raise ConfigError("--resume takes the configuration of the run folder; leave out options that change it")
    runs, registry = Runs(own, default_keys().resolve()), Registry(own / "fleet.db")
    if resume:
        folder = resume.resolve()
    else:
        name = Path(scenario).stem if scenario.endswith(".toml") else scenario
        folder = (out or own / "runs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
        runs.check_open()
        changes = list(assignments or [])
        if data_dir is not None:
            changes.append(f"data.dir={json.dumps(str(data_dir.resolve()))}")
        runs.prepare(scenario, changes, folder, registry.fleet())
    number = runs.start(folder, registry.owners())
    _say(f"run {number} in {folder}")
    if not detach and runs.follow(folder, number, _say):
        _say(f"done: {folder / 'summary.json'}")


def drain(
    off: Annotated[bool, typer.Option("--off", help="Let runs begin again.")] = False, home: Folder = None
) -> None:
    """Before the server is stopped: let no run begin, and wait until the one in progress has ended its round."""
    own = _home(home)
    own.config()
    runs = Runs(own, default_keys())
    if off:
        runs.open()
        _say("runs may begin again; `fedstill server run --resume FOLDER` continues one that was paused")
        return
    runs.close()
    _say("no run begins from now on; `fedstill server drain --off` ends that")
    if Control(own).is_up():
        runs.wait_until_idle(_say)
    _say("drained: no run is active; the server may be stopped")


def status(home: Folder = None) -> None:
    """Show the fleet and the runs."""
    own = _home(home)
    own.config()
    members = Registry(own / "fleet.db").members()
    control = Control(own)
    up = control.is_up()
    nodes = control.nodes() if up else {}
    table = Table("device", "class", "state", "enrolled")
    for member in members:
        state = "revoked" if member.revoked else nodes.get(member.node or 0, "unknown")
        enrolled = time.strftime("%Y-%m-%d %H:%M", time.localtime(member.enrolled))
        table.add_row(str(member.number), member.device_class, state, enrolled)
    console = Console(highlight=False)
    console.print(table)
    _say(f"server: {'up' if up else 'not up; `fedstill server start`'}{', draining' if own.draining else ''}")
    for found in control.runs() if up else []:
        _say(f"run {found.run_id}: {found.status}")


def certificate(
    renewed: Annotated[bool, typer.Option("--renew", help="Make a new one, by the same authority.")] = False,
    host: Annotated[
        list[str] | None, typer.Option(help="With --renew: one more name or address to reach this server by.")
    ] = None,
    home: Folder = None,
) -> None:
    """Show until when the server's certificates are good, or make a new one for the server."""
    own = _home(home)
    own.config()
    if host and not renewed:
        raise ConfigError("--host names what a new certificate is for; give --renew with it")
    for name in host or ():
        _expect_host(name)
    if renewed:
        renew(own.folder, tuple(host or ()))
        _say(f"made: {own / 'server.crt'}; `fedstill server start` takes it when it starts again")
    for name in ("server.crt", "ca.crt"):
        try:
            end = last_day((own / name).read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{own / name}: no certificate here") from error
        _say(f"{name}: good until {end:%Y-%m-%d}, {(end - datetime.now(UTC)).days} days")


def add(server: typer.Typer) -> None:
    """Add these commands."""
    for command in (init, start, token, revoke, run, drain, status, certificate):
        server.command()(command)
