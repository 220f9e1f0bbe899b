from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedstill.flower.streaming import StreamingGrid
from simulations.engines.local import LocalGrid

KIND = "query.echo"


class Slow(LocalGrid):
    """Has one reply more at each look, and none at the first."""

    def __init__(self, nodes: int) -> None:
        app = ClientApp()

        @app.query("echo")
        def echo(message: Message, context: object) -> Message:
            return Message(RecordDict(), reply_to=message)

        super().__init__(app, nodes, {})
        self.looks = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.looks += 1
        return [] if self.looks == 1 else super().pull_messages(sorted(message_ids)[:1])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedstill.flower.streaming.SHORTEST", 0.001)


def questions(grid: LocalGrid) -> list[Message]:
    return [Message(RecordDict(), node, KIND) for node in grid.get_node_ids()]


def test_each_reply_comes_as_soon_as_it_is_there() -> None:
    slow = Slow(3)
    grid = StreamingGrid(slow)
    seen = [(reply.metadata.src_node_id, slow.looks) for reply in grid.send_and_receive(questions(slow), timeout=60)]
    assert {node for node, _ in seen} == set(grid.get_node_ids())
    assert [looks for _, looks in seen] == [2, 3, 4]


def test_what_has_not_come_in_time_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(3)
    monkeypatch.setattr(slow, "pull_messages", lambda ids: [])
    assert list(StreamingGrid(slow).send_and_receive(questions(slow), timeout=0.01)) == []


def test_nothing_is_waited_for_where_nothing_was_sent() -> None:
    slow = Slow(1)
    assert list(StreamingGrid(slow).send_and_receive([], timeout=None)) == []
    assert slow.looks == 0
