"""The device's commands `fedstill client evaluate` and `fedstill client speed`."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.updates.home import Home, default_home
from fedstill.errors import ConfigError, ReleaseError


def register(client: typer.Typer) -> None:
    """Add the commands to the `client` group."""
    client.command()(evaluate)
    client.command()(speed)


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


def speed(
    student: Annotated[str, typer.Argument(help="Architecture of the student, as in the scenario.")],
    shape: Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")] = "1x28x28",
    classes: Annotated[int, typer.Option(min=2, max=65535, help="Of the task.")] = 10,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Samples of an optimizer step.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="Of training, and as many of predicting.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="File for a fleet's `benchmark`; default: print it.")] = None,
) -> None:
    """Measure how fast this machine trains a student and predicts with it, for the fleet file of a simulation."""
    import client.probe as probe
    from fedstill.files import write_atomic
    from fedstill.speed import Speed

    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x([1-9]\d{0,3})", shape)
    if found is None:
        raise ConfigError(f"--input {shape}: channels x height x width are wanted, such as 3x32x32")
    machine = probe.look()
    if machine.emulated:
        raise ConfigError(f"{machine.architecture} is emulated here: its speed is no board's; measure on the board")
    if "torch" not in machine.packages:
        raise ConfigError("no torch here: only a device that trains with torch has such a speed")
    probe.check_machine()  # there are boards on which this torch dies
    from client.speed import measure

    channels, height, width = (int(part) for part in found.groups())
    measured = measure(student, (channels, height, width), classes, batch, seconds)
    told = Speed(
        student=student,
        input_shape=(channels, height, width),
        classes=classes,
        batch=batch,
        machine=machine.model,
        train_samples_per_second=measured.train,
        predict_samples_per_second=measured.predict,
    )
    content = told.model_dump_json(indent=1)
    if out is None:
        typer.echo(content)
        return
    try:
        write_atomic(out, content.encode())
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}") from error
    rates = f"trains {measured.train:,.0f} and predicts {measured.predict:,.0f} samples a second"
    typer.echo(f"{machine.model} {rates} with {student}: {out}")
