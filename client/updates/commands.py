"""The device's commands: `fedstill client trust`, `update`, `predict` and `status`."""

import hashlib
import os
import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from client.updates.home import ROOT, Home, default_home
from fedstill.errors import ConfigError, FedstillError, ReleaseError, UpdateError
from fedstill.files import write_atomic

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The device's folder; default: FEDSTILL_HOME or the user's data folder.", readable=False
    ),
]


def register(client: typer.Typer) -> None:
    """Add the commands to the `client` group."""
    for command in (trust, update, predict, status):
        client.command()(command)


def trust(
    root_file: Annotated[Path, typer.Argument(help="root.json of the installation that signs your releases.")],
    home: HomeOption = None,
    device_id: Annotated[
        str | None, typer.Option("--id", help="Name of this device, as in its certificate; default: a random one.")
    ] = None,
) -> None:
    """Trust a root: from now on this device installs what its keys signed, and nothing else."""
    from fedstill.release.trust import Trust
    from fedstill.release.verify import NAME

    if device_id is not None and not NAME.fullmatch(device_id):
        raise ConfigError(f"--id {device_id}: 1 to 100 letters, digits, '.', '_' or '-' are wanted")
    place = _home(home)
    try:
        content = root_file.read_bytes()
        found = Trust.load(content, str(root_file))
    except OSError as error:
        raise ConfigError(f"{root_file}: {error.strerror}") from error
    except ReleaseError as error:
        raise ConfigError(str(error)) from error
    place.make()
    path = place.folder / ROOT
    with place.updating():
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(f"{place.folder}: trusts another root; one folder (--home) for each installation")
        place.make(device_id)
        write_atomic(path, content)
    typer.echo(f"trusted: root version {found.version}, SHA-256 {hashlib.sha256(content).hexdigest()}")


def update(
    server: Annotated[str, typer.Option(help="HOST:PORT of the delivery service.")],
    device_class: Annotated[str, typer.Option("--class", help="Class of this device, as pi5 or zero2w.")],
    home: HomeOption = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the authorities that may vouch for the server.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file that this device shows (mTLS).")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's private key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS, to a server on this machine.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look once; this is the default.")] = False,
    every: Annotated[str | None, typer.Option(help="Go on looking, as 1h, 30m or 1d.")] = None,
) -> None:
    """Look for a newer release; fetch, verify, try and watch it; keep it or go back."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines about a server that is away; ours say it
    from client.updates.delivery import Access, Server
    from client.updates.updater import Kind, Updater, read_trust

    if once and every is not None:
        raise ConfigError("--once and --every exclude each other")
    seconds, place = _seconds(every), _home(home)
    place.state()
    read_trust(place)
    with Access(server, ca, certificate, key, insecure).channel() as channel:
        updater = Updater(place, Server(channel, server), device_class)
        looked = False
        while True:
            try:
                result = updater.check()
                typer.echo(f"{result.kind.value}: {result.detail}")
                bad = result.kind in (Kind.REFUSED, Kind.ROLLED_BACK)
            except ReleaseError as error:
                typer.echo(f"fedstill: refused: {error}", err=True)
                bad = True
            except (ConfigError, UpdateError) as error:
                # What is set up wrongly shows at the first look; later ones may meet another updater for a moment.
                if seconds is None or (not looked and isinstance(error, ConfigError)):
                    raise
                typer.echo(f"fedstill: {error}", err=True)
            looked = True
            if seconds is None:
                raise typer.Exit(int(bad))
            threading.Event().wait(seconds)


def predict(
    home: HomeOption = None,
    socket: Annotated[Path | None, typer.Option(help="Unix socket; default: predict.sock in the folder.")] = None,
    http: Annotated[
        int | None, typer.Option(help="Port of 127.0.0.1 to serve HTTP on as well.", min=1, max=65535)
    ] = None,
) -> None:
    """Serve predictions of the running release, and watch over new ones."""
    from client.predict.api import on_loopback, on_socket
    from client.predict.supervisor import supervising
    from client.updates.watch import Rules

    place = _home(home)
    place.state()
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    path = socket or place.folder / "predict.sock"
    with supervising(place, Rules()) as supervisor:
        servers = [on_socket(path, supervisor)]
        if http is not None:
            servers.append(on_loopback(http, supervisor))
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        typer.echo(f"serving {path}" + (f" and http://127.0.0.1:{http}" if http else ""))
        ended.wait()
        for server in servers:
            server.shutdown()
            server.server_close()
        path.unlink(missing_ok=True)


def status(home: HomeOption = None) -> None:
    """Show what this device does in its fleet, what it runs, what it would go back to, and what was refused."""
    from client.home import find_home
    from client.status import device_rows
    from client.updates.home import STATE
    from client.updates.telemetry import queued
    from client.updates.updater import read_trust

    device = find_home(home)
    fleet = device_rows(device)
    for name, value in fleet.items():
        typer.echo(f"{name:16} {value}")
    place = Home(device.release)
    if fleet and not (place.folder / STATE).exists():
        typer.echo(f"{'releases':16} none; `fedstill client trust` begins with them")
        return
    state = place.state()
    try:
        root = f"version {read_trust(place).version}"
    except FedstillError as error:
        root = str(error)
    running = "nothing" if state.running is None else f"version {state.running.version} ({state.running.file})"
    rows = {
        "device": f"{state.device_id}, class {state.device_class or 'not known yet'}",
        "trusted root": root,
        "running": running + (", still watched" if state.watched else ""),
        "good before": ", ".join(f"version {found.version}" for found in state.good) or "none",
        "newest seen": f"version {state.highest_release} (timestamp {state.highest_timestamp})",
        "served": "yes" if place.served() else "no",
        "reports waiting": str(len(queued(place))),
    }
    for name, value in rows.items():
        typer.echo(f"{name:16} {value}")
    for failed in state.failed:
        typer.echo(f"{'failed':16} version {failed.version}: {failed.reason}")


def _home(path: Path | None) -> Home:
    return Home(path or default_home())


def _seconds(every: str | None) -> float | None:
    if every is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)([smhd])", every)
    if not found:
        raise ConfigError(f"--every {every}: a number and a unit are wanted, as 30m, 1h or 1d")
    return float(found[1]) * UNITS[found[2]]
