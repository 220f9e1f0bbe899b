"""`fedstill devices`: the device classes, what a release may cost on each, and the state of the fleet."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from fedstill.device_classes import BUDGETS, MB, budget_of
from fedstill.errors import ConfigError
from fedstill.terminal import wide
from server.delivery.records import read_summary
from server.delivery.state import State, found_state
from server.delivery.summary import Found
from server.deployment.control import Control
from server.deployment.home import DELIVERY, ServerHome, default_home
from server.enrolment.registry import Member, Registry

DASH = "—"
ONLINE = "online"
"""What Flower calls a SuperNode that is there."""


def overview(members: Iterable[Member], nodes: Mapping[int, str] | None, told: Iterable[Found]) -> list[dict[str, Any]]:
    """Return what is known of each class: the built-in ones, and those that devices are of.

    Args:
        members: devices, revoked ones too.
        nodes: Flower's status by node id; None: the SuperLink is not up, so nobody knows who is online.
        told: what devices told about their releases.
    """
    fleet = list(members)
    newest: dict[str, Found] = {}
    for one in sorted(told, key=lambda found: found.version):
        newest[one.device_class] = one
    present = [member for member in fleet if member.revoked is None]
    enrolled = Counter(member.device_class for member in present)
    revoked = Counter(member.device_class for member in fleet if member.revoked is not None)
    online = Counter(member.device_class for member in present if nodes and nodes.get(member.node or 0) == ONLINE)
    names = dict.fromkeys([*BUDGETS, *sorted({member.device_class for member in fleet} | newest.keys())])
    return [
        {
            "device_class": name,
            "budget": budget_of(name).model_dump(exclude_none=True),
            "enrolled": enrolled[name],
            "online": None if nodes is None else online[name],
            "revoked": revoked[name],
            "release": newest[name].model_dump(exclude_none=True) if name in newest else None,
        }
        for name in names
    ]


def devices(
    home: Annotated[
        Path | None, typer.Option("--home", help="The server's folder; default: FEDSTILL_SERVER or the user's own.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="The delivery service's state; default: in the server's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List the device classes and the state of the fleet."""
    own = ServerHome((home or default_home()).resolve())
    members: list[Member] = []
    nodes: Mapping[int, str] | None = None
    if home is not None or (own / "server.toml").exists():
        own.config()
        members = Registry(own / "fleet.db").members()
        control = Control(own)
        if control.is_up():
            nodes = control.nodes()
    if state is not None and not state.is_dir():
        raise ConfigError(f"{state}: no such folder; --state is that of the delivery service")
    kept = state or (own / DELIVERY if home is not None else found_state())
    records = State(kept.resolve()).telemetry
    classes = overview(members, nodes, read_summary(records).found if records.exists() else ())
    if as_json:
        print(json.dumps({"server": nodes is not None, "classes": classes}, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("class")
    for title in ("flash MB", "RAM MB", "latency ms", "enrolled", "online", "revoked", "release", "told by", "failed"):
        table.add_column(title, justify="right")
    for one in classes:
        table.add_row(*_row(one))
    console = wide(table)
    console.print(table)
    if nodes is None:
        console.print("no server is up here, so nobody knows who is online", markup=False)


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    budget = one["budget"]
    found = Found.model_validate(one["release"]) if one["release"] else None
    activations = " of activations" if budget.get("ram") == "activations" else ""
    return (
        one["device_class"],
        _millions(budget.get("flash_bytes")),
        _millions(budget.get("ram_bytes")) + activations,
        f"{budget['latency_ms']:g}" if "latency_ms" in budget else DASH,
        str(one["enrolled"]),
        DASH if one["online"] is None else str(one["online"]),
        str(one["revoked"]),
        DASH if found is None else f"version {found.version}",
        DASH if found is None else str(found.devices),
        DASH if found is None else str(found.failed),
    )


def _millions(count: int | None) -> str:
    return DASH if count is None else f"{count / MB:g}"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(devices)
