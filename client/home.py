"""A device's folder: what it is, its keys, and what it keeps.

device.toml      what this device is and whom it talks to
ca.crt           certificate of the server's authority
supernode.key    the private key that this device made and that never leaves it, mode 0600
state/           of the agent: a folder per run
run/agent.sock   where the agent listens
run/*.pid        processes
logs/            what they said
flwr/            Flower's own, apps that the server sent included
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError

MAX_SOCKET_PATH = 107  # bytes, of sockaddr_un


class DeviceConfig(Settings):
    """`device.toml`."""

    number: int = Field(ge=0, lt=2**31)
    """The device's number, which the server gave it."""
    device_class: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Its class."""
    superlink: str
    """Address of the server, host:port."""
    data: str = ""
    """Path of the description of its data, `data.toml`."""
    proxy: str = ""
    """Path of the proxy set, the .npy file that the server uses."""
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
    def state(self) -> Path:
        """The agent's state."""
        return self.folder / "state"

    @property
    def run(self) -> Path:
        """Sockets and process ids."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """What the processes said."""
        return self.folder / "logs"

    @property
    def flwr(self) -> Path:
        """Flower's own folder."""
        return self.folder / "flwr"

    @property
    def socket(self) -> Path:
        """Where the agent listens.

        Raises:
            ConfigError: the path is longer than a Unix socket's may be.
        """
        path = self.run / "agent.sock"
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
