"""Flower's own simulation: hosts are virtual SuperNodes whose messages Ray's actors answer."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping

from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation


def run_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    hosts: int,
    server_config: Mapping[str, bool | float | int | str],
    host_config: Mapping[str, bool | float | int | str],
) -> None:
    """Run a Flower app in Flower's simulation, one core per actor.

    `run_simulation` has no run configuration, so both apps get theirs from a wrapper here; the apps are the same.

    Args:
        server_app: the ServerApp.
        client_app: the ClientApp.
        hosts: number of virtual SuperNodes.
        server_config: run configuration of the ServerApp.
        host_config: run configuration of the hosts.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    config = dict(server_config)
    configured_server = ServerApp()

    @configured_server.main()
    def main(grid: Grid, context: Context) -> None:
        own = Context(context.run_id, context.node_id, context.node_config, context.state, config)
        server_app(grid, own)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=configured_server,
            client_app=_configured(client_app, dict(host_config)),
            num_supernodes=hosts,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )


def _configured(client_app: ClientApp, run_config: UserConfig) -> ClientApp:
    wrapper = ClientApp()

    def forward(message: Message, context: Context) -> Message:
        # The run configuration of a node's context can't be changed; its state is the same object, and lasts.
        merged = {**context.run_config, **run_config}
        own = Context(context.run_id, context.node_id, context.node_config, context.state, merged)
        return client_app(message, own)

    register: Callable[[Callable[[Message, Context], Message]], object]
    for register in (wrapper.query("devices"), wrapper.train("distill")):
        register(forward)
    return wrapper
