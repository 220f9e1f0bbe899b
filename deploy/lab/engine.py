"""Docker Engine, as far as the lab needs it: what it makes has the lab's label, and what it refuses becomes a line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedstill.errors import ConfigError

LABEL = "fedstill.lab"
TIMEOUT = 600  # seconds that one request may take; a busy machine starts slowly


@contextmanager
def told() -> Iterator[None]:
    """Tell what Docker refuses in one line.

    Raises:
        ConfigError: it refused something, or it can't be reached any more.
    """
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise ConfigError(f"docker: {' '.join(str(error).split())[:500]}") from error


def connect() -> Any:
    """Return a client of the Docker daemon that the environment names.

    Raises:
        ConfigError: the SDK is not installed, or there is no daemon that this user may use.
    """
    try:
        import docker
        import requests
    except ModuleNotFoundError as error:
        raise ConfigError("the lab needs Docker's SDK; install Fedstill with the extra lab") from error
    try:
        client = docker.from_env(timeout=TIMEOUT)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise ConfigError(
            f"no Docker daemon can be used ({' '.join(str(error).split())[:300]}); "
            "is Docker Engine running, and is this user allowed to use it?"
        ) from error
    return client


@dataclass(frozen=True)
class Engine:
    """The containers and the network of one lab.

    Attributes:
        client: of the Docker daemon.
        lab: the lab's name.
    """

    client: Any
    lab: str

    @property
    def prefix(self) -> str:
        """What names begin with."""
        return f"fedstill-{self.lab}-"

    @property
    def labels(self) -> dict[str, str]:
        """What everything of the lab carries."""
        return {LABEL: self.lab}

    def containers(self) -> list[Any]:
        """Return the lab's containers, those that ended too, by name."""
        with told():
            found = self.client.containers.list(all=True, filters={"label": f"{LABEL}={self.lab}"})
        return sorted(found, key=lambda container: str(container.name))

    @property
    def network(self) -> str:
        """Name of the network that they share; in it, a container is known by its name."""
        return self.prefix + "net"

    def open_network(self) -> None:
        """Make the network."""
        with told():
            self.client.networks.create(self.network, driver="bridge", labels=self.labels)

    def create(self, name: str, image: str, command: Sequence[str], **options: Any) -> Any:
        """Make a container and don't start it.

        Raises:
            ConfigError: its image is not here, or Docker refuses.
        """
        self.check_image(image)
        labels = {**self.labels, **options.pop("labels", {})}
        with told():
            return self.client.containers.create(
                image, list(command), name=self.prefix + name, labels=labels, init=True, **options
            )

    def check_image(self, image: str) -> None:
        """Make sure that an image is here: none is looked for elsewhere.

        Raises:
            ConfigError: it is not.
        """
        from docker.errors import ImageNotFound

        with told():
            try:
                self.client.images.get(image)
            except ImageNotFound as error:
                raise ConfigError(f"image {image} is not here; `make images` builds it") from error

    def architecture(self, image: str) -> str:
        """Return which processors an image that is here is for, as Docker calls them."""
        with told():
            return str(self.client.images.get(image).attrs["Architecture"])

    def run(self, container: Any, *command: str) -> bytes:
        """Run a command in a container and return what it printed.

        Raises:
            ConfigError: it failed.
        """
        with told():
            code, (output, errors) = container.exec_run(list(command), demux=True)
        if code:
            said = " ".join((errors or output or b"").decode(errors="replace").split())[-500:]
            raise ConfigError(f"{container.name}: `{' '.join(command[:3])}` failed: {said}")
        return output or b""

    def remove(self) -> int:
        """Remove everything of the lab, and return how many containers there were."""
        found = self.containers()
        with told():
            for container in found:
                container.remove(force=True, v=True)
            for network in self.client.networks.list(filters={"label": f"{LABEL}={self.lab}"}):
                network.remove()
        return len(found)
