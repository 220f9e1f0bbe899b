"""What a SuperNode does with messages, with Flower's own queue and loop: only the network is left out."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.start_client_internal import _insert_message

from client import turns
from fedstill.flower.adapter import empty_run, identify_server
from tests.waiting import eventually

NODE, OLD, NEW = 7, 11, 12


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> InMemoryNodeState:
    monkeypatch.setattr(turns, "PAUSE", 0.01)
    return InMemoryNodeState(ObjectStoreFactory().store())


def question(run: int) -> Message:
    identify_server(run)
    found = Message(RecordDict({"asked": ConfigRecord({"round": run})}), NODE, "train.distill")
    found.metadata.__dict__["_message_id"] = found.object_id
    return found


def ask(state: InMemoryNodeState, run: int, status: str = Status.RUNNING) -> tuple[Message, int]:
    """Put a message where the SuperNode puts it, with an app that has got so far."""
    asked = question(run)
    state.store_message(asked)
    task = state.create_task(TaskType.CLIENT_APP, run)
    assert task is not None
    if status != Status.PENDING:
        state.claim_task(task)
    if status == Status.RUNNING:
        state.activate_task(task)
    return asked, task


def answer(state: InMemoryNodeState, asked: Message) -> None:
    state.record_message_processing_start(asked.metadata.message_id)
    _insert_message(Message(RecordDict(), reply_to=asked), state, state.object_store)
    state.record_message_processing_end(asked.metadata.message_id)


class Sending:
    """The SuperNode's half that sends answers, at work."""

    def __init__(self, state: InMemoryNodeState) -> None:
        self.sent: list[Message] = []

        def send(message: Message, tree: object, seconds: float) -> tuple[set[str], str]:
            self.sent.append(message)
            return set(), ""

        how: dict[str, Any] = {"send": send, "push_object": None}
        self._thread = threading.Thread(
            target=turns.send, kwargs={"state": state, "object_store": state.object_store, **how}, daemon=True
        )
        self._thread.start()

    def all_of_it(self) -> list[Message]:
        """Return what was sent, when it is at its end."""
        eventually(lambda: self.over)
        return self.sent

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()


def test_a_late_answer_of_another_run_does_not_take_the_place_of_a_messages_own(state: InMemoryNodeState) -> None:
    late = question(OLD)
    answer(state, late)
    asked, _ = ask(state, NEW)
    under_way = Sending(state)
    eventually(lambda: len(under_way.sent) == 1)
    time.sleep(0.2)
    assert not under_way.over  # its own is not there yet
    answer(state, asked)
    assert [sent.metadata.run_id for sent in under_way.all_of_it()] == [OLD, NEW]


def test_an_app_that_is_at_work_is_waited_for(state: InMemoryNodeState) -> None:
    for status in (Status.PENDING, Status.STARTING, Status.RUNNING):
        asked, task = ask(state, NEW, status)
        under_way = Sending(state)
        time.sleep(0.2)
        assert not under_way.over
        answer(state, asked)
        state.finish_task(task, SubStatus.FAILED, "")
        (sent,) = under_way.all_of_it()
        assert not sent.has_error()


def test_an_app_that_fails_before_it_has_its_message_is_answered_for(state: InMemoryNodeState) -> None:
    asked, task = ask(state, NEW)
    state.finish_task(task, SubStatus.FAILED, "no memory")
    (sent,) = Sending(state).all_of_it()
    assert sent.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert sent.metadata.reply_to_message_id == asked.metadata.message_id
    assert turns.open_messages(state) == []


def test_an_app_that_is_killed_before_it_has_its_message_is_answered_for(state: InMemoryNodeState) -> None:
    _, task = ask(state, NEW)
    under_way = Sending(state)
    time.sleep(0.1)
    assert not under_way.over
    state.task_token_store[task].active_until = now() - timedelta(seconds=1)  # its heartbeats are missed
    (sent,) = under_way.all_of_it()
    assert sent.error.code == ErrorCode.CLIENT_APP_CRASHED


def test_an_answer_that_was_handed_over_in_part_is_waited_for_while_its_app_is_at_work_and_no_longer(
    state: InMemoryNodeState,
) -> None:
    asked, task = ask(state, NEW)
    part = Message(RecordDict({"answer": ConfigRecord({"labels": 1})}), reply_to=asked)
    part.metadata.__dict__["_message_id"] = part.object_id
    state.store_message_and_object_tree(part, get_object_tree(part), state.start_session(NEW))
    under_way = Sending(state)
    time.sleep(0.2)
    assert not under_way.over
    state.finish_task(task, SubStatus.FAILED, "killed")
    (sent,) = under_way.all_of_it()
    assert sent.error.code == ErrorCode.CLIENT_APP_CRASHED


def test_where_nothing_waits_for_an_answer_none_is_waited_for(state: InMemoryNodeState) -> None:
    assert Sending(state).all_of_it() == []


def test_a_message_whose_run_ends_while_it_is_fetched_leaves_nothing_behind(state: InMemoryNodeState) -> None:
    asked = question(OLD)
    state.set_node_id(NODE)
    state.store_run(empty_run(OLD))

    def pull_object(run: int, number: str) -> bytes:
        raise RunNotRunningException

    how: dict[str, Any] = {
        "receive": lambda: (asked, get_object_tree(asked)),
        "pull_object": pull_object,
        **dict.fromkeys(("get_run", "get_fab", "confirm_message_received", "trusted_entities")),
    }
    assert turns.fetch(state=state, object_store=state.object_store, node_config={}, **how) is None
    (task,) = state.get_tasks()
    assert task.status.status == Status.FINISHED
    assert turns.open_messages(state) == []
    assert len(state.object_store) == 0


def test_nothing_is_taken_back_where_nothing_came(state: InMemoryNodeState) -> None:
    how = dict.fromkeys(("get_run", "get_fab", "pull_object", "confirm_message_received", "trusted_entities"))
    nothing: dict[str, Any] = {"receive": lambda: None, **how}
    state.create_task(TaskType.CLIENT_APP, OLD)
    assert turns.fetch(state=state, object_store=state.object_store, node_config={}, **nothing) is None
    (task,) = state.get_tasks()
    assert task.status.status == Status.PENDING
