"""The internals of flwr 1.41.0 that the library rests on, all in this module, each with a contract test.

* `Message()` raises unless the process-wide `TaskIdentity` is set; only Flower's own runtimes set it.
* A message's id is set by the SuperLink, through a private attribute; there is no setter.
* The serialized size of a message is that of its protobuf form, made by a function that is not public.
* What an error in place of a reply means is a number from a list that is not public.
"""

from uuid import uuid4

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = 1
LOST = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    }
)
"""Codes of errors that a message meets on its way: sent again, it may be answered."""


def identify_server(run_id: int) -> None:
    """Let this process create messages as the ServerApp of a run."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE_ID


def empty_run(run_id: int) -> Run:
    """Return a run with nothing but its id."""
    return Run.create_empty(run_id=run_id)


def stamp(message: Message) -> str:
    """Give a message its id, as a SuperLink would, and return it."""
    message_id = str(uuid4())
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def serialize(message: Message) -> bytes:
    """Return a message's protobuf serialization."""
    return message_to_proto(message).SerializeToString()


def deserialize(content: bytes) -> Message:
    """Return the message that `serialize` made bytes of."""
    return message_from_proto(ProtoMessage.FromString(content))
