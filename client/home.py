"""A device's folder: what it is, its keys, and what it keeps.

device.toml      what this device is and whom it talks to
ca.crt           certificate of the server's authority
supernode.key    the private key that this device made and that never leaves it, mode 0600
root.json        the root that signs what this device fetches
parcels/         proxy sets and backbones that were fetched, and the roots that came after root.json
limits.toml      when it may train (`client.limits`)
state/           of the agent: a folder per run
superexec.secret  what the SuperNode knows by that it gives work to its own apps alone
run/agent/       agent.sock, where the agent listens, and what it tells `client status`
run/*.pid        processes
logs/            what they said
flwr/            Flower's own; without separate users, apps that the server sent included

With separate users (`client.install.layout` says what is whose) also:

users.toml         who they are
apps/              apps that the server sent
data/, release/    room for the device's data, and for its updates
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from client.updates.home import default_home
from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError
from fedstill.files import write_atomic
from fedstill.invitation import host_and_port

SYSTEM_HOME = Path("/var/lib/fedstill")
"""The folder of a device that is installed."""
PAUSED = "paused"
"""In `run/agent/`: why the agent was absent from the last round; not there: it was not."""
MAX_SOCKET_PATH = 107  # bytes, of sockaddr_un


def _is_address(address: str) -> str:
    host_and_port(address)
    return address


def _is_address_or_empty(address: str) -> str:
    return _is_address(address) if address else address


class DeviceConfig(Settings):
    """`device.toml`."""

    number: int = Field(ge=0, lt=2**31)
    """The device's number, which the server gave it."""
    device_class: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Its class."""
    superlink: Annotated[str, AfterValidator(_is_address)]
    """Address of the server, host:port."""
    data: str = ""
    """Path of the description of its data, `data.toml`."""
    proxy: str = ""
    """Path of the proxy set, the .npy file that the server uses."""
    delivery: Annotated[str, AfterValidator(_is_address_or_empty)] = ""
    """Address of the delivery service, host:port, from which the agent fetches proxy set and backbone where no path is
    given; empty: none."""
    backbone: str = ""
    """Path of the class's backbone, the .onnx file that the server made, for a device without torch."""
    supernode_port: int = Field(default=9094, gt=0, lt=65536)
    """Port on the loopback address for Flower's own processes; one per device on a machine."""


@dataclass(frozen=True)
class Home:
    """A device's folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @property
    def config_path(self) -> Path:
        """What this device is."""
        return self.folder / "device.toml"

    @property
    def authority(self) -> Path:
        """Certificate of the server's authority."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The device's private key."""
        return self.folder / "supernode.key"

    @property
    def users(self) -> Path:
        """Who runs what; not there: one user runs everything."""
        return self.folder / "users.toml"

    @property
    def limits(self) -> Path:
        """When this device may train; not there: always."""
        return self.folder / "limits.toml"

    @property
    def state(self) -> Path:
        """The agent's state."""
        return self.folder / "state"

    @property
    def root(self) -> Path:
        """The root that this device trusts: what it fetches is signed under it."""
        return self.folder / "root.json"

    @property
    def parcels(self) -> Path:
        """What was fetched for runs."""
        return self.folder / "parcels"

    @property
    def run(self) -> Path:
        """Sockets and process ids."""
        return self.folder / "run"

    @property
    def agent_run(self) -> Path:
        """The agent's socket, and who may enter it."""
        return self.run / "agent"

    @property
    def logs(self) -> Path:
        """What the processes said."""
        return self.folder / "logs"

    @property
    def flwr(self) -> Path:
        """Flower's own folder."""
        return self.folder / "flwr"

    @property
    def apps(self) -> Path:
        """The folder of the apps that the server sent, where they have a user of their own."""
        return self.folder / "apps"

    @property
    def release(self) -> Path:
        """The folder of its updates; with users of its own it is the agent's, below this one."""
        return self.folder / "release" if self.users.exists() else self.folder

    @property
    def secret(self) -> Path:
        """What SuperNode and superexec know each other by."""
        return self.folder / "superexec.secret"

    def make_secret(self) -> None:
        """Write what SuperNode and SuperExec know each other by, if it isn't there, for its owner's eyes alone."""
        if not self.secret.exists():
            write_atomic(self.secret, secrets.token_hex(32).encode(), mode=0o600)

    @property
    def socket(self) -> Path:
        """Where the agent listens.

        Raises:
            ConfigError: the path is longer than a Unix socket's may be.
        """
        path = self.agent_run / "agent.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ConfigError(f"{path}: too long for a Unix socket; choose a shorter --home")
        return path

    def config(self) -> DeviceConfig:
        """Read what this device is.

        Raises:
            ConfigError: it is not enrolled, or a key or value is wrong.
        """
        if not self.config_path.is_file():
            raise ConfigError(f"{self.folder}: no device here; `fedstill client enroll` makes one")
        return parse(DeviceConfig, read_toml(self.config_path), str(self.config_path))


def find_home(folder: Path | None) -> Home:
    """Return the folder that is meant: the one that is named, the user's own, or the system's where that is all."""
    home, system = Home((folder or default_home()).resolve()), Home(SYSTEM_HOME)
    named = folder is not None or "FEDSTILL_HOME" in os.environ
    return home if named or home.config_path.exists() or not system.users.exists() else system
