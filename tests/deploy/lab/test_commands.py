import gc
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from deploy.lab.commands import lab
from fedstill.errors import ConfigError

# Docker's SDK leaves the socket that found nobody to whoever collects it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    yield
    gc.collect()


@pytest.mark.parametrize("words", [["up", "pi4=1"], ["status"], ["down"]])
def test_without_a_daemon_one_line_says_so(words: list[str]) -> None:
    done = CliRunner().invoke(lab, words)
    assert isinstance(done.exception, ConfigError)  # which the command line tells in one line, with exit code 2
    assert "is Docker Engine running" in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_wrong_fleet_is_refused_before_docker_is_asked() -> None:
    done = CliRunner().invoke(lab, ["up", "pi9=1"])
    assert "no class pi9" in str(done.exception)


def test_a_name_is_a_short_word() -> None:
    assert "--name" in str(CliRunner().invoke(lab, ["down", "--name", "a b"]).exception)
