"""`fedstill client install | uninstall`."""

import os
import pwd
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.home import SYSTEM_HOME, Home
from client.updates.home import default_home
from fedstill.errors import ConfigError

Folder = Annotated[
    Path | None,
    typer.Option("--home", help="The installed device's folder; default: /var/lib/fedstill.", readable=False),
]


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def _home(folder: Path | None) -> Home:
    return Home((folder or SYSTEM_HOME).resolve())


def _of_user() -> Path:
    """Return where the user who called sudo has a device."""
    caller = os.environ.get("SUDO_USER", "")
    if "FEDSTILL_HOME" in os.environ or not caller:
        return default_home()
    try:
        return Path(pwd.getpwnam(caller).pw_dir) / ".local" / "share" / "fedstill" / "device"
    except KeyError:
        return default_home()


def install(
    home: Folder = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of the enrolled device; default: that of the calling user.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Description of this device's data, data.toml.")] = None,
    proxy: Annotated[Path | None, typer.Option(help="The server's proxy set, a .npy file.")] = None,
    backbone: Annotated[Path | None, typer.Option(help="The class's backbone, for a device without torch.")] = None,
    service: Annotated[bool, typer.Option(help="A systemd service that starts now and at boot.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the unit, and change nothing.")] = False,
) -> None:
    """Make an enrolled device a part of the system: users of its own, and a service."""
    from client.install import system
    from client.install.layout import Users
    from client.install.unit import NAME, unit
    from client.limits import read_limits

    own, user = _home(home), Home((source or _of_user()).resolve())
    if dry_run:
        found = own if own.config_path.exists() else user
        device_class = found.config().device_class if found.config_path.exists() else ""
        typer.echo(unit(own, read_limits(found), device_class), nl=False)
        return
    system.check_root()
    if service:
        system.check_systemd()
        system.check_service(own)
    found = system.enrolled(user, own)
    config = system.described(found, data=data, proxy=proxy, backbone=backbone)
    text = unit(own, read_limits(found), config.device_class)
    users = Users()
    system.prepare(found, own, config, users)
    _say(f"installed: device {config.number} of class {config.device_class} in {own.folder}")
    for name in ("data",) if config.delivery else ("data", "proxy"):
        if not getattr(config, name):
            _say(
                f"missing: {name}; put it into {own.folder / 'data'}, then `sudo fedstill client install --{name} FILE`"
            )
    if service:
        system.enable(text)
        _say(f"started: {NAME}, now and at every boot; `journalctl -u {NAME}` and {own.logs} say how it goes")
    else:
        _say(f"next: fedstill client start --home {own.folder}, as root")


def uninstall(
    home: Folder = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the device's folder, with its key, and its users as well.")
    ] = False,
) -> None:
    """Remove the service; the device's folder stays, and the users to whom it belongs, unless they are to go."""
    from client.install import system
    from client.install.layout import Users
    from fedstill.config import parse, read_toml
    from fedstill.processes import holder

    own = _home(home)
    system.check_root()
    if not own.users.exists():
        raise ConfigError(f"{own.folder}: nothing is installed here")
    users = parse(Users, read_toml(own.users), str(own.users))
    gone = []
    if system.has_unit(own):
        system.disable()
        gone.append("the service")
    if holder(own.run / "client.lock") is not None:
        raise ConfigError(f"the device in {own.folder} is running still; `fedstill client stop` ends it")
    if purge:
        went = system.purge(own, users)
        gone += [str(own.folder), *(f"user {name}" for name in went)]
        _say(f"removed: {', '.join(gone)}")
        if not went:
            _say(f"the users {', '.join(users.names())} stay: another device's service has them too")
        _say("the server knows the device still; `fedstill server revoke` there ends that")
    else:
        _say(f"removed: {', '.join(gone) or 'no service'}; {own.folder} and its users stay (--purge removes them)")


def add(client: typer.Typer) -> None:
    """Add these commands."""
    for command in (install, uninstall):
        client.command()(command)
