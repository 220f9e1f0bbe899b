"""The local engine: Flower's Grid in one process, every message serialized and passed through the same ClientApp."""

import secrets
from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from fedstill.errors import FedstillError
from fedstill.flower.adapter import deserialize, empty_run, identify_server, serialize, stamp


class LocalGrid(Grid):
    """A Grid whose nodes are calls of a ClientApp in this process.

    Args:
        client_app: answers the messages.
        hosts: number of nodes.
        run_config: what the nodes' contexts carry.
    """

    def __init__(self, client_app: ClientApp, hosts: int, run_config: UserConfig) -> None:
        run_id = secrets.randbits(63)
        identify_server(run_id)
        self._run = empty_run(run_id)
        self._client_app = client_app
        self._contexts: dict[int, Context] = {
            node + 2: Context(
                run_id=run_id,
                node_id=node + 2,
                node_config={"partition-id": node, "num-partitions": hosts},
                state=RecordDict(),
                run_config=run_config,
            )
            for node in range(hosts)
        }
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run that this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower keeps this for older apps."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer each message at once and keep the reply."""
        ids = []
        for message in messages:
            message_id = stamp(message)
            self._replies[message_id] = self._deliver(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Yield the replies, each message being answered when its reply is taken, so that one reply is in memory.

        Nothing is ever late here, so `timeout` is not used.
        """
        for message in messages:
            yield from self.pull_messages(self.push_messages([message]))

    def _deliver(self, message: Message) -> Message:
        received = deserialize(serialize(message))
        context = self._contexts.get(message.metadata.dst_node_id)
        if context is None:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "no such node"), reply_to=received)
        try:
            reply = self._client_app(received, context)
        except FedstillError:
            raise
        except Exception as error:  # a node's failure is the round's business, as in Flower's own engines
            failure = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error).__name__}: {error}")
            reply = Message(failure, reply_to=received)
        stamp(reply)
        return deserialize(serialize(reply))


def run_local(
    server_app: ServerApp, client_app: ClientApp, hosts: int, run_config: Mapping[str, bool | float | int | str]
) -> None:
    """Run a Flower app in this process."""
    grid = LocalGrid(client_app, hosts, dict(run_config))
    context = Context(
        run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config=dict(run_config)
    )
    server_app(grid, context)
