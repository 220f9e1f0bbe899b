"""A SuperNode's messages, one after the other: each has its own answer sent before the next is asked for.

Flower 1.41's SuperNode sends whatever answer comes first and goes on. One that comes late, of a run that is over, takes
the place of the message's own, which then waits for the next message: from there on the device is one answer behind in
every round, until it starts anew. And where no answer comes, it waits for ever. Mended here as well:

* A message whose run ends while it is being fetched is left half there. Its app waits more than an hour for the rest of
  it, and answers then.
* An app that ends before it has taken its message, or while it hands over its answer, leaves nobody to answer.
"""

import logging
import time
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStore
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
            drop(message, state, object_store)
            for task in state.get_tasks(run_ids=[message.metadata.run_id], statuses=UNFINISHED):
                state.finish_task(task.task_id, SubStatus.STOPPED, "the message was taken back")
    return run


def send(*, state: InMemoryNodeState, object_store: ObjectStore, **how: Any) -> None:
    """Send answers as Flower does, until all messages have theirs."""
    while wait_for_an_answer(state, object_store):
        _send(state=state, object_store=object_store, **how)


def wait_for_an_answer(state: InMemoryNodeState, object_store: ObjectStore) -> bool:
    """Wait until there are answers to send, if need be those that no app is left to give.

    Returns:
        Whether there are; no: no message waits for one.
    """
    while True:
        unanswered = open_messages(state)
        runs = list({message.metadata.run_id for message in (*unanswered, *unsent(state))})
        working = state.get_tasks(run_ids=runs, statuses=UNFINISHED)
        answers = unsent(state)  # after the look at the tasks: an app answers, and then ends
        torn = [answer for answer in answers if not is_whole(answer, object_store)]
        if working and (torn or not answers):
            time.sleep(PAUSE)
        elif torn:
            for answer in torn:
                drop(answer, state, object_store)
        elif answers:
            return True
        elif not unanswered:
            return False
        else:
            for message in unanswered:
                log.warning("the ClientApp ended without an answer")
                state.record_message_processing_start(message.metadata.message_id)
                loop._insert_message(Message(CRASHED, reply_to=message), state, object_store)
                state.record_message_processing_end(message.metadata.message_id)


def open_messages(state: InMemoryNodeState) -> list[Message]:
    """Return the messages that wait for their answers."""
    stored = [*state.msg_store.values()]
    return [entry.message for entry in stored if not entry.message.metadata.reply_to_message_id]


def unsent(state: InMemoryNodeState) -> list[Message]:
    """Return the answers that apps have begun to hand over and nobody has begun to send."""
    stored = [*state.msg_store.values()]
    return [entry.message for entry in stored if entry.message.metadata.reply_to_message_id and not entry.is_retrieved]


def is_whole(answer: Message, object_store: ObjectStore) -> bool:
    """Return whether all of an answer has been handed over."""
    try:
        tree = object_store.get_object_tree(answer.metadata.message_id)
    except NoObjectInStoreError:
        return False
    return all(object_store.get(part.object_id) for part in iterate_object_tree(tree))


def drop(message: Message, state: InMemoryNodeState, object_store: ObjectStore) -> None:
    """Forget a message and what it consists of."""
    state.delete_messages(message_ids=[message.metadata.message_id])
    object_store.delete(message.metadata.message_id)


def take_turns() -> None:
    """Let SuperNodes of this process do so from now on; Flower has no other name to hook."""
    setattr(loop, "_pull_and_store_message", fetch)  # noqa: B010
    setattr(loop, "_push_messages", send)  # noqa: B010
