"""A SuperNode's messages, one after the other: each has its own answer sent before the next is asked for.

Flower 1.41's SuperNode sends whatever answer comes first and goes on. One that comes late, of a run that is over, takes
the place of the message's own, which then waits for the next message: from there on the device is one answer behind in
every round, until it starts anew. Such answers come of two things that are mended here as well:

* A message whose run ends while it is being fetched is left half there. Its app waits two hours for the rest of it.
* An app that ends before it has taken its message leaves it with nobody who would ever answer it.
"""

import logging
import time
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.supercore.object_store import ObjectStore
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

log = logging.getLogger("fedstill")
PAUSE = 0.5
"""Seconds between two looks for an answer."""
UNFINISHED = (Status.PENDING, Status.STARTING, Status.RUNNING)
CRASHED = Error(ErrorCode.CLIENT_APP_CRASHED, "the ClientApp ended without an answer")
_fetch, _send = loop._pull_and_store_message, loop._push_messages


def fetch(*, state: InMemoryNodeState, object_store: ObjectStore, **how: Any) -> int | None:
    """Ask for a message as Flower does; one that could not be fetched whole leaves nothing behind.

    Returns:
        The message's run; None: there is no message.
    """
    run = _fetch(state=state, object_store=object_store, **how)
    if run is None:
        for message in open_messages(state):
            state.delete_messages(message_ids=[message.metadata.message_id])
            object_store.delete(message.metadata.message_id)
            for task in state.get_tasks(run_ids=[message.metadata.run_id], statuses=UNFINISHED):
                state.finish_task(task.task_id, SubStatus.STOPPED, "the message was taken back")
    return run


def send(*, state: InMemoryNodeState, object_store: ObjectStore, **how: Any) -> None:
    """Send answers as Flower does, until all messages have theirs."""
    while True:
        wait_for_an_answer(state, object_store)
        _send(state=state, object_store=object_store, **how)
        if not open_messages(state):
            return


def wait_for_an_answer(state: InMemoryNodeState, object_store: ObjectStore) -> None:
    """Return when there is an answer, if need be the one that no app is left to give."""
    while True:
        unanswered = open_messages(state)
        runs = [message.metadata.run_id for message in unanswered]
        working = state.get_tasks(run_ids=runs, statuses=UNFINISHED)  # first: an app's answer comes before its end
        if any(not entry.is_retrieved and is_answer(entry.message) for entry in [*state.msg_store.values()]):
            return
        if working:
            time.sleep(PAUSE)
            continue
        for message in unanswered:
            log.warning("the ClientApp ended without an answer")
            state.record_message_processing_start(message.metadata.message_id)
            loop._insert_message(Message(CRASHED, reply_to=message), state, object_store)
            state.record_message_processing_end(message.metadata.message_id)


def open_messages(state: InMemoryNodeState) -> list[Message]:
    """Return the messages that wait for their answers."""
    return [entry.message for entry in [*state.msg_store.values()] if not is_answer(entry.message)]


def is_answer(message: Message) -> bool:
    """Return whether a message answers another."""
    return bool(message.metadata.reply_to_message_id)


def take_turns() -> None:
    """Let SuperNodes of this process do so from now on; Flower has no other name to hook."""
    setattr(loop, "_pull_and_store_message", fetch)  # noqa: B010
    setattr(loop, "_push_messages", send)  # noqa: B010
