"""The `server` commands about delivery; gRPC and the store are loaded by those that need them."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fedstill.device_classes import budget_of
from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from fedstill.release.verify import NAME
from server.delivery import rollout as rollouts
from server.delivery.rollout import Rollout
from server.delivery.state import State, default_state, found_state
from server.delivery.summary import Found, Summary

StateFolder = Annotated[
    Path | None, typer.Option("--state", help="Folder of the service's state; default: the server's, or its own.")
]
DASH = "—"


def _state(folder: Path | None) -> State:
    return State((folder or found_state()).resolve())


def deliver(
    store: Annotated[str, typer.Argument(help="Local folder, or the URL of any store that fsspec knows.")],
    address: Annotated[str, typer.Option(help="host:port of the service.")] = "0.0.0.0:9443",
    cert: Annotated[Path | None, typer.Option(help="PEM file of the server's certificate chain.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM file of who signs the devices' certificates; then every device needs one.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No certificate; this machine alone is served.")] = False,
    metrics_address: Annotated[
        str | None, typer.Option(envvar="FEDSTILL_DELIVERY_METRICS", help="host:port of the metrics; default: none.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder of the service's state; default: the installation's own.")
    ] = None,
) -> None:
    """Deliver the releases of a store to devices, and keep what they tell."""
    from server.delivery.logs import log_as_json
    from server.delivery.serve import Options, serve

    if insecure == (cert is not None or key is not None):
        raise ConfigError("give --cert and --key, or --insecure to serve this machine alone without them")
    if "://" not in store:
        store = str(Path(store).resolve())
    log_as_json()
    folder = (state or default_state()).resolve()
    asyncio.run(serve(Options(store, folder, address, cert, key, client_ca, metrics_address)))


def rollout(
    device_class: Annotated[str, typer.Argument(metavar="CLASS", help="Device class.")],
    percent: Annotated[
        float | None, typer.Option(min=0, max=100, help="Give the candidate to so many of all devices.")
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Nobody else gets the candidate.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; earlier failures count no more.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Give the candidate to all devices.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take the candidate, or without one the promoted version, back.")
    ] = False,
    group: Annotated[str | None, typer.Option(help="Name devices that get candidates first.")] = None,
    devices: Annotated[str, typer.Option(help="Their ids, separated by commas; none: the group is removed.")] = "",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=0.99, help="Share of failures that pauses: of --group, or with --percent of all."),
    ] = None,
    version: Annotated[
        int, typer.Option(min=0, help="Another version than the candidate (else the newest) is meant.")
    ] = 0,
    state: StateFolder = None,
) -> None:
    """Show or change which version the devices of a class get; a running service follows at once."""
    actions = {
        "--percent": percent is not None,
        "--pause": pause,
        "--resume": resume,
        "--promote": promote,
        "--withdraw": withdraw,
        "--group": group is not None,
    }
    chosen = [name for name, given in actions.items() if given]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)}: one at a time")
    if not NAME.fullmatch(device_class):
        raise ConfigError(f"{device_class!r} is no device class")
    kept = _state(state)
    available = _versions(kept.store(), device_class)

    def change(before: Rollout | None) -> Rollout:
        known = before or rollouts.begun(available)
        if percent is not None:
            # What nobody has staged goes to all devices; its newest version is the one that is staged now.
            return rollouts.stage(known, available, percent, version, threshold)
        if pause:
            return rollouts.paused(known, "by command")
        if resume:
            return rollouts.resumed(known, time.time())
        if promote:
            return rollouts.promote(known, available, version)
        if withdraw:
            if version > max(available, default=0):
                raise ConfigError(f"no version {version} in the store yet")
            return rollouts.withdraw(known, version)
        assert group is not None
        ids = tuple(part for part in (text.strip() for text in devices.split(",")) if part)
        return rollouts.grouped(known, group, ids, threshold)

    changed = kept.change(device_class, change) if chosen else kept.rollout(device_class)
    _show(device_class, changed, available)


def _versions(store: str, device_class: str) -> list[int]:
    from server.release.store import Store

    return Store(store).versions(device_class)


def _show(device_class: str, rollout: Rollout | None, available: list[int]) -> None:
    if rollout is None:
        newest = f"version {available[-1]}" if available else "nothing, the store has none"
        _say(f"{device_class}: never staged; all devices get the newest release: {newest}")
        return
    _say(f"{device_class}: all devices get {f'version {rollout.current}' if rollout.current else 'nothing'}")
    if rollout.candidate:
        note = f"; paused: {rollout.paused}" if rollout.paused else ""
        _say(f"candidate: version {rollout.candidate}, {rollout.percent:g} % of the devices{note}")
    for name, group in rollout.groups.items():
        _say(f"group {name}: {len(group.devices)} devices, pauses above {100 * group.threshold:g} % of failures")
    waiting = [version for version in available if version > max(rollout.current, rollout.candidate)]
    waiting = [version for version in waiting if version not in rollout.withdrawn]
    for name, versions in (("withdrawn", rollout.withdrawn), ("waits to be staged", waiting)):
        if versions:
            _say(f"{name}: version {', '.join(map(str, versions))}")


def telemetry(
    device_class: Annotated[str | None, typer.Argument(metavar="[CLASS]", help="Device class; default: all.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write it as JSON, which a run takes as `telemetry`.")] = None,
    state: StateFolder = None,
) -> None:
    """Show what devices told about their releases: a slow class, a drifting one, refused releases."""
    from server.delivery.records import read_summary

    kept = _state(state)
    kept.store()  # a folder that is none of a service is a mistake, not silence
    found = [
        one for one in read_summary(kept.telemetry).found if device_class is None or one.device_class == device_class
    ]
    if out is not None:
        try:
            write_atomic(out, Summary(found=tuple(found)).model_dump_json(indent=2).encode())
        except OSError as error:
            raise ConfigError(f"{out}: {error.strerror}") from error
    if not found:
        _say(f"no device of class {device_class} told anything yet" if device_class else "no device told anything yet")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("class")
    for title in ("version", "devices", "failed", "ms / budget", "accuracy %", "drift"):
        table.add_column(title, justify="right")
    table.add_column("note")
    for one in found:
        table.add_row(*_row(one))
    Console().print(table)


def _row(found: Found) -> tuple[str, ...]:
    budget = budget_of(found.device_class)
    latency = DASH if found.latency_ms_p50 is None else f"{found.latency_ms_p50:.2f}"
    allowed = DASH if budget.latency_ms is None else f"{budget.latency_ms:g}"
    return (
        found.device_class,
        str(found.version),
        str(found.devices),
        str(found.failed),
        f"{latency} / {allowed}",
        DASH if found.accuracy is None else f"{100 * found.accuracy:.1f}",
        DASH if found.drift is None else f"{found.drift:.2f}",
        ", ".join(note for note, holds in (("slow", found.slow(budget)), ("drifting", found.drifting)) if holds),
    )


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def register(server: typer.Typer) -> None:
    """Add these commands."""
    server.command()(deliver)
    server.command()(rollout)
    server.command()(telemetry)
