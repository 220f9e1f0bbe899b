"""Flower's own simulation: hosts are virtual SuperNodes whose messages Ray's actors answer.

Ray is started here, or is a cluster that runs already; its machines share the run folder, at the same path.
"""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import ray
from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedstill.errors import ConfigError
from fedstill.flower.streaming import StreamingGrid

ANSWER_SECONDS = 30.0  # in which a cluster has to answer: Ray itself would try for minutes
INHERITED = (
    "PYTHONPATH",
    "FLWR_TELEMETRY_ENABLED",
    "FLWR_DISABLE_UPDATE_CHECK",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
)


def connect(address: str) -> int:
    """Connect this process to a running Ray cluster, and return how many cores it has.

    Args:
        address: `host:port` of its head, or `auto` for the one that this machine is part of.

    Raises:
        ConfigError: there is no such cluster, or this machine is not part of it.
    """
    if not ray.is_initialized():
        _reach(address)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        named = {key: os.environ[key] for key in INHERITED if key in os.environ}
        try:
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": named},
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"--ray-address {address}: can't join this Ray cluster: {reason}") from error
    return max(1, int(ray.cluster_resources().get("CPU", 0)))  # type: ignore[no-untyped-call]


def _reach(address: str) -> None:
    """Check that something answers at an address, which Ray takes minutes to find out."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(
            f"--ray-address {address}: give the cluster's head as host:port, such as 10.0.0.1:6379, or auto"
        )
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray-address {address}: no Ray cluster answers there ({error}); start its head with `ray start --head`"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # Ray alone has the certificates to ask further
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(ANSWER_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise ConfigError(f"--ray-address {address}: what answers there is no Ray cluster's head") from error


def run_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    hosts: int,
    server_config: Mapping[str, bool | float | int | str],
    host_config: Mapping[str, bool | float | int | str],
    address: str = "",
) -> None:
    """Run a Flower app in Flower's simulation, one core per actor.

    `run_simulation` has no run configuration, so both apps get theirs from a wrapper here; the apps are the same.

    Args:
        server_app: the ServerApp.
        client_app: the ClientApp.
        hosts: number of virtual SuperNodes.
        server_config: run configuration of the ServerApp.
        host_config: run configuration of the hosts.
        address: of a running Ray cluster; empty: Ray is started on this machine for the run.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    resources: dict[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    if address:
        connect(address)
    else:  # or Ray would join whatever cluster runs on this machine
        resources["init_args"] = {"address": "local"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    config = dict(server_config)
    configured_server = ServerApp()

    @configured_server.main()
    def main(grid: Grid, context: Context) -> None:
        own = Context(context.run_id, context.node_id, context.node_config, context.state, config)
        server_app(StreamingGrid(grid), own)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=configured_server,
            client_app=_configured(client_app, dict(host_config)),
            num_supernodes=hosts,
            backend_config=resources,
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
