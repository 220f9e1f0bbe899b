"""The `release` commands: keys, verification, signing anew, and the store, which alone needs the server's extras."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedstill.errors import ConfigError, ReleaseError
from fedstill.release.verify import verify_folder
from server.release.home import default_folder
from server.release.keys import ROLES, ROOT, Keys, open_keys, read_trust
from server.release.sign import TIMESTAMP_DAYS, sign_again

release = typer.Typer(no_args_is_help=True, help="Sign, verify and publish releases.")

KeyFolder = Annotated[Path | None, typer.Option("--keys", help="Folder of the keys; default: the installation's own.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a release.")]


def _own(keys: Path | None) -> Path:
    return (keys or default_folder()).resolve()


def _existing(keys: Path | None) -> Keys:
    folder = _own(keys)
    if not (folder / ROOT).is_file():
        raise ConfigError(f"{folder}: no signing keys here; `fedstill release keys` makes them, as does a first run")
    return open_keys(folder)


def _release(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    return folder


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def _refuse(error: ReleaseError) -> typer.Exit:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"fedstill: refused: {error}", markup=False)
    return typer.Exit(1)


@release.command()
def verify(
    folder: Folder,
    root: Annotated[Path | None, typer.Option(help="Trusted root; default: the installation's own.")] = None,
    keys: KeyFolder = None,
) -> None:
    """Verify a release against a trusted root, never one found in its folder: exit code 0, or 1 with the reason."""
    _release(folder)
    trust = read_trust(root if root is not None else _own(keys) / ROOT)
    try:
        manifest, signed = verify_folder(folder, trust, datetime.now(UTC))
    except ReleaseError as error:
        raise _refuse(error) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    _say(
        f"good: {manifest.device_class}, version {signed.version}, {manifest.task}, {manifest.student}, "
        f"{len(signed.files)} files, signed under root version {trust.version}"
    )


@release.command()
def sign(
    folder: Folder,
    root: Annotated[Path | None, typer.Option(help="Root that the release was signed under; default: now's.")] = None,
    keys: KeyFolder = None,
) -> None:
    """Sign a release anew, as a newer version: after it expired, or after keys were replaced."""
    own = _existing(keys)
    try:
        manifest = sign_again(_release(folder), own.trust if root is None else read_trust(root), own)
    except ReleaseError as error:
        raise _refuse(error) from error
    _say(f"signed: {manifest.device_class}, version {manifest.version}")


@release.command()
def publish(
    folder: Folder,
    store: Annotated[str, typer.Argument(help="Local folder, or the URL of any store that fsspec knows.")],
    keys: KeyFolder = None,
) -> None:
    """Copy a release into a store, where it must be newer than what is there."""
    from server.release.store import publish as publish_to

    try:
        signed = publish_to(_release(folder), store, _existing(keys))
    except ReleaseError as error:
        raise _refuse(error) from error
    _say(f"published: {signed.device_class}, version {signed.version}, to {store}")


@release.command()
def renew(
    store: Annotated[str, typer.Argument(help="The store.")],
    days: Annotated[float, typer.Option(min=0.01, help="Days until the timestamps expire.")] = TIMESTAMP_DAYS,
    keys: KeyFolder = None,
) -> None:
    """Renew the timestamps of a store: say for some more days that what is there is the newest."""
    from server.release.store import renew as renew_in

    try:
        renewed = renew_in(store, _existing(keys), days)
    except ReleaseError as error:
        raise _refuse(error) from error
    for found in renewed:
        _say(f"renewed: {found.device_class}, version {found.version}, timestamp {found.timestamp_version}")


@release.command()
def keys(keys: KeyFolder = None) -> None:
    """Show the installation's keys, made if there are none."""
    own = open_keys(_own(keys))
    root = own.trust.root.signed
    _say(f"{own.folder / ROOT}: version {root.version}, expires {root.expires:%Y-%m-%d}")
    for role in ROLES:
        found = root.roles[role]
        _say(f"{role}: {found.threshold} of {', '.join(keyid[:12] for keyid in found.keyids)}")


@release.command()
def rotate(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.")],
    count: Annotated[int, typer.Option(help="New keys.")] = 1,
    threshold: Annotated[int, typer.Option(help="How many of them must sign.")] = 1,
    keys: KeyFolder = None,
) -> None:
    """Replace the keys of a role by new ones; what the old ones signed is no longer trusted."""
    if role not in ROLES:
        raise ConfigError(f"unknown role {role!r}; valid: {', '.join(ROLES)}")
    trust = _existing(keys).rotate(role, count, threshold)
    _say(f"rotated {role}: root version {trust.version}")


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.add_typer(release, name="release")
