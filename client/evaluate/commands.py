"""The device's command `fedstill client evaluate`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.updates.home import Home, default_home
from fedstill.errors import ConfigError, ReleaseError


def register(client: typer.Typer) -> None:
    """Add the command to the `client` group."""
    client.command()(evaluate)


def evaluate(
    release: Annotated[
        Path | None, typer.Argument(help="Folder of a release; default: what runs on this device.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data: a folder with a sub-folder for each class, an .npz file or a data.toml."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="root.json of the installation that signed it; default: the device's.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="The device's folder; default: FEDSTILL_HOME or the user's data folder.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="Of each timing at most.")] = 5.0,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images predicted at once for the throughput.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of the disturbances.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a release on this machine: latency, throughput, memory, energy, accuracy on your data."""
    from rich.console import Console

    from client.evaluate.evaluation import evaluate as measured
    from client.evaluate.measure import Effort
    from client.evaluate.show import show
    from client.updates.updater import read_trust
    from fedstill.release.trust import Trust

    place = Home(home or default_home())
    if release is None:
        running = place.state().running
        if running is None:
            raise ConfigError(f"{place.folder}: nothing runs here yet; name the folder of a release")
        folder, now = place.slot(running.version), None
    else:
        folder, now = release, datetime.now(UTC)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    try:
        trust = read_trust(place) if root is None else Trust.load(root.read_bytes(), str(root))
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}") from error
    except ReleaseError as error:
        raise ConfigError(str(error)) from error
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    found = measured(
        folder,
        trust,
        now,
        data,
        Effort(seconds, batch),
        seed,
        lambda text: errors.print(text, style="dim", markup=False),
    )
    if as_json:
        typer.echo(json.dumps(found.content(), indent=1))
    else:
        show(found, Console(highlight=False))
