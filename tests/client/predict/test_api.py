"""The local API where something is wrong: each request gets its own answer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.predict import PredictionError, connect
from client.predict.api import on_socket
from client.predict.supervisor import Supervisor
from client.updates.home import Home
from tests.client.devices import FEW


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Socket of a device on which nothing runs."""
    home = Home(tmp_path / "home")
    home.make()
    server = on_socket(tmp_path / "predict.sock", Supervisor(home, FEW))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path / "predict.sock"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("side", [8, 900])
def test_where_nothing_runs_every_request_of_a_connection_hears_why(path: Path, side: int) -> None:
    images = np.zeros((1, 1, side, side), dtype=np.uint8)
    with connect(path) as predictor:
        for _ in range(3):
            with pytest.raises(PredictionError, match="no release is installed"):
                predictor.predict(images)
        assert predictor.status()["version"] is None


def test_many_may_come_at_once(path: Path) -> None:
    together, failures = threading.Barrier(100), list[Exception]()

    def ask() -> None:
        together.wait()
        try:
            with connect(path) as predictor:
                predictor.status()
        except PredictionError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
