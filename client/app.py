"""The ClientApp: hands a message's requests to this node's host, and the host's answers back. Imports no torch."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.host import Host, Waiting, host_of
from fedstill.flower import answer, describe

app = ClientApp()


def _host(message: Message, context: Context) -> Host:
    host = host_of(context.run_config, context.node_config, context.run_id)
    # By the time to live alone, not by when it began: the clocks of server and device may differ.
    return host.within(message.metadata.ttl) if isinstance(host, Waiting) else host


@app.query("devices")
def devices(message: Message, context: Context) -> Message:
    """Tell which devices this host carries."""
    return describe(message, _host(message, context).devices())


@app.train("distill")
def distill(message: Message, context: Context) -> Message:
    """Let each device digest, revisit and predict."""
    return answer(message, _host(message, context).answer)
