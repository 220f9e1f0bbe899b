"""The images as they were built."""

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.engine import connect
from fedstill.errors import ConfigError

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
IMAGES = ("fedstill/server", "fedstill/proxy", "fedstill/client", "fedstill/client:train")
HAS_TORCH = "import importlib.util as u; print(u.find_spec('torch') is not None, u.find_spec('ray') is not None)"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    try:
        found = connect()
    except ConfigError as error:
        pytest.skip(str(error))
    yield found
    found.close()


def said(client: Any, image: str, *command: str) -> str:
    """Run a command in a container without a network, and return what it printed."""
    printed: bytes = client.containers.run(image, list(command), remove=True, network_mode="none", read_only=True)
    return printed.decode().strip()


@pytest.mark.parametrize("image", IMAGES)
def test_none_runs_as_root_or_without_a_health_check(client: Any, image: str) -> None:
    config = client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert said(client, image, "id", "-u") == "10001"


def test_the_edge_image_holds_no_torch_and_the_one_that_learns_does(client: Any) -> None:
    assert said(client, "fedstill/client", "python", "-c", HAS_TORCH) == "False False"
    assert said(client, "fedstill/client:train", "python", "-c", HAS_TORCH) == "True False"


def test_the_edge_image_has_the_commands_of_a_device(client: Any) -> None:
    shown = said(client, "fedstill/client", "fedstill", "client", "--help")
    for command in ("enroll", "start", "update", "predict"):
        assert command in shown
