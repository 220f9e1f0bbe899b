"""The server's folder: its configuration, certificates and keys, Flower's state, and runs.

server.toml         what this server is
ca.key, ca.crt      the authority that devices trust; the key, mode 0600, is needed for new certificates alone
server.key          private key of the server, mode 0600
server.crt          its certificate, and the authority's after it
superexec.secret    what the SuperLink knows its superexec by, mode 0600
superlink.db        Flower's state
fleet.db            devices and tokens
root.json           the root that devices are told to trust
store/              what devices fetch: signed proxy sets and backbones
delivery/           the delivery service's state
bundle/             the app that a run sends: a configuration without code
run/, logs/, flwr/  processes, what they said, Flower's own folder
runs/               run folders
newest-run          path of the one that was started last
draining            is there while no run may begin
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fedstill.config import Settings, parse, read_toml
from fedstill.errors import ConfigError
from fedstill.folders import data_folder

NEWEST_RUN = "newest-run"
DRAINING = "draining"
DELIVERY = "delivery"


class ServerConfig(Settings):
    """`server.toml`."""

    host: str
    """Name or address by which devices reach this server."""
    listen: str = "127.0.0.1"
    """Address that the SuperLink listens on. Its control API shares the port: whoever reaches it can start code on
    the devices, so keep it behind a proxy that lets `/v1/fleet/` through alone, or on a network of your own."""
    port: int = Field(default=8000, gt=0, lt=65536)
    """Port of the SuperLink."""
    public_port: int = Field(default=0, ge=0, lt=65536)
    """Port that devices use where a proxy stands before the SuperLink; 0: `port`."""
    enrolment_listen: str = "0.0.0.0"
    """Address that the enrolment service listens on."""
    enrolment_port: int = Field(default=8001, gt=0, lt=65536)
    """Port of the enrolment service."""
    metrics_listen: str = "127.0.0.1"
    """Address that the metrics of fleet and runs are on; they tell classes, counts and accuracies to whoever asks."""
    metrics_port: int = Field(default=0, ge=0, lt=65536)
    """Port of these metrics; 0: none."""
    json_logs: bool = False
    """Whether supervisor, enrolment service and metrics log a JSON object per line."""

    delivery_listen: str = "0.0.0.0"
    """Address that the delivery service listens on."""
    delivery_port: int = Field(default=8002, gt=0, lt=65536)
    """Port of the delivery service, from which devices fetch proxy set and backbones."""

    @property
    def superlink(self) -> str:
        """Where devices reach the SuperLink, host:port."""
        return _at(self.host, self.public_port or self.port)

    @property
    def enrolment(self) -> str:
        """Where devices reach the enrolment service, host:port."""
        return _at(self.host, self.enrolment_port)

    @property
    def delivery(self) -> str:
        """Where devices reach the delivery service, host:port."""
        return _at(self.host, self.delivery_port)

    @property
    def control(self) -> str:
        """Where this machine reaches it, host:port."""
        return _at("127.0.0.1" if self.listen in ("0.0.0.0", "::") else self.listen, self.port)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ServerHome:
    """The server's folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def config(self) -> ServerConfig:
        """Read what this server is.

        Raises:
            ConfigError: there is none, or a key or value is wrong.
        """
        path = self / "server.toml"
        if not path.is_file():
            raise ConfigError(f"{self.folder}: no server here; `fedstill server init` makes one")
        return parse(ServerConfig, read_toml(path), str(path))

    @property
    def draining(self) -> bool:
        """Whether no run may begin, as the server is about to be stopped."""
        return (self / DRAINING).exists()

    def newest_run(self) -> Path | None:
        """Return the folder of the run that was started last; None: none was."""
        try:
            return Path((self / NEWEST_RUN).read_text())
        except OSError:
            return None


def default_home() -> Path:
    """Return where a server lies unless told: `FEDSTILL_SERVER`, or `fedstill/server` in the user's data folder.

    Raises:
        ConfigError: neither is set, and the user has no home.
    """
    return data_folder("server", "the server", "set FEDSTILL_SERVER or give --home", "FEDSTILL_SERVER")
