"""The `client` commands: what runs on an edge device. Each part of the room adds its own."""

import typer

from client import deployment
from client.evaluate import commands as evaluate
from client.updates import commands as updates

client = typer.Typer(no_args_is_help=True, help="Be an edge device: take part in runs, install releases, predict.")


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    deployment.add(client)
    updates.register(client)
    evaluate.register(client)
    app.add_typer(client, name="client")
