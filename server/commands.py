"""The `server` commands: what runs in the cloud. Each part of the room adds its own."""

import typer

from server.delivery import commands as delivery
from server.deployment import commands as deployment

server = typer.Typer(no_args_is_help=True, help="Be the server: deliver releases, enrol devices, run federations.")


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    delivery.register(server)
    deployment.add(server)
    app.add_typer(server, name="server")
