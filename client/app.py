"""The ClientApp: hands a message's requests to this node's host, and the host's answers back. Imports no torch."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.host import Host, host_of
from fedstill.flower import answer, describe

app = ClientApp()


def _host(context: Context) -> Host:
    return host_of(context.run_config, context.node_config, context.run_id)


@app.query("devices")
def devices(message: Message, context: Context) -> Message:
    """Tell which devices this host carries."""
    return describe(message, _host(context).devices())


@app.train("distill")
def distill(message: Message, context: Context) -> Message:
    """Let each device digest, revisit and predict."""
    return answer(message, _host(context).answer)
