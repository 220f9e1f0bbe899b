"""`fedstill lab up | status | down`."""

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.lab.boards import BOARDS, read_fleet
from deploy.lab.engine import Engine, connect
from deploy.lab.lab import Images, describe, memory_used
from deploy.lab.lab import up as bring_up
from fedstill.errors import ConfigError

lab = typer.Typer(no_args_is_help=True, help="A real server and real devices as containers on this machine.")
Name = Annotated[str, typer.Option(help="Name of the lab, where there are several.")]


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def _engine(name: str) -> Engine:
    if re.fullmatch(r"[a-z0-9]{1,20}", name) is None:
        raise ConfigError(f"--name {name}: a short word of small letters and digits, such as lab")
    return Engine(connect(), name)


@lab.command()
def up(
    devices: Annotated[list[str], typer.Argument(metavar="CLASS=COUNT...", help=f"Of {', '.join(sorted(BOARDS))}.")],
    scenario: Annotated[str, typer.Option(help="Whose private samples the devices get.")] = "digits",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the scenario: section.key=value.")
    ] = None,
    name: Name = "lab",
    server_image: Annotated[str, typer.Option(help="Image of the server.")] = "fedstill/server",
    proxy_image: Annotated[str, typer.Option(help="Image of the proxy.")] = "fedstill/proxy",
    device_image: Annotated[
        str, typer.Option(help="Image of the devices; one for arm64 runs where binfmt is set up.")
    ] = "fedstill/client:train",
    small_image: Annotated[str, typer.Option(help="Image of devices that torch doesn't fit.")] = "fedstill/client",
) -> None:
    """Start a server and devices, each with its class's memory and CPU, enrolled, with data of its own."""
    fleet = read_fleet(devices)
    engine = _engine(name)
    bring_up(
        engine, fleet, Images(server_image, proxy_image, device_image, small_image), scenario, assignments or [], _say
    )
    small = [kind for kind in dict.fromkeys(fleet) if not BOARDS[kind].torch]
    learners = "".join(f" --set device_classes.{kind}.learner=head" for kind in small)
    _say(f"next: docker exec {engine.prefix}server fedstill server run {scenario}{learners}")


@lab.command()
def status(name: Name = "lab") -> None:
    """Show the containers of a lab, what they may use and what they do use."""
    engine = _engine(name)
    table = Table("container", "state", "limits", "memory used")
    for container in engine.containers():
        device = "fedstill.class" in container.labels
        used = f"{memory_used(container) / 2**20:.0f} MB" if container.status == "running" else "-"
        table.add_row(container.name, container.status, describe(container) if device else "none", used)
    if not table.row_count:
        raise ConfigError("no lab here; `fedstill lab up pi4=2` starts one")
    Console(highlight=False).print(table)


@lab.command()
def down(name: Name = "lab") -> None:
    """Remove a lab with all that is in it, runs too."""
    engine = _engine(name)
    _say(f"removed: {engine.remove()} containers")


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.add_typer(lab, name="lab")
