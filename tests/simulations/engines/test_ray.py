import socket

import pytest
import typer
from typer.testing import CliRunner

from fedstill.errors import ConfigError
from simulations.commands import simulate
from simulations.engines.ray import connect


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_an_address_at_which_no_cluster_answers_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no Ray cluster answers there"):
        connect(f"127.0.0.1:{closed_port()}")


def test_something_else_that_answers_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.engines.ray.ANSWER_SECONDS", 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="no Ray cluster's head"):
            connect(f"127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:port"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        connect(address)


@pytest.mark.parametrize("options", [["--engine", "local"], []])
def test_an_address_without_the_engine_that_uses_it_is_refused(options: list[str]) -> None:
    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, ["digits", "--ray-address", "127.0.0.1:6379", *options])
    assert isinstance(result.exception, ConfigError)
    assert "--engine ray" in str(result.exception)
