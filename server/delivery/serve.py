"""The running service: ports, certificates, health, reflection, metrics, and an end that drops nothing."""

import asyncio
import contextlib
import logging
import resource
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from fedstill.errors import ConfigError
from protos import delivery_pb2
from protos.delivery_pb2_grpc import add_DeliveryServicer_to_server
from server.delivery.service import Delivery
from server.delivery.state import State
from server.release.store import Store

NAME = delivery_pb2.DESCRIPTOR.services_by_name["Delivery"].full_name
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
MAX_REQUEST = 1 << 16  # bytes; the largest, a report, is below 4 kB
MAX_CALLS = 8192  # answered at once; more are refused, and devices try again later
_LOG = logging.getLogger(__name__)

_CHANNEL = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_concurrent_streams", 16),  # of one device
    ("grpc.so_reuseport", 0),  # a second service on the same port is a mistake
    # A link may be slow or asleep: ask after a minute of silence, give up half a minute later.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    # A thousand devices at once keep calls waiting: gRPC would cancel those that wait for more than 30 s.
    ("grpc.server_max_unrequested_time_in_server", 600),
    ("grpc.server.max_pending_requests", MAX_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_CALLS),
    ("grpc.max_connection_idle_ms", 600_000),  # a device asks every few hours, not every minute
)


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        store: local path or URL of the releases.
        state: folder of what the service keeps.
        address: `host:port`; port 0: any free one.
        certificate: PEM file of the server's certificate chain; None: insecure.
        key: PEM file of its private key.
        client_ca: PEM file of who signs the devices' certificates; None: devices need none.
        metrics: `host:port` of the metrics; None: no metrics.
        refresh: seconds between looks into the store.
        drain: seconds that calls may still take when the service ends.
    """

    store: str
    state: Path
    address: str
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    metrics: str | None = None
    refresh: float = 5.0
    drain: float = 30.0


def split(address: str) -> tuple[str, int]:
    """Return host and port of an address.

    Raises:
        ConfigError: it has not the form `host:port`.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{address}: not of the form host:port")
    return host, int(port)


def credentials(options: Options) -> grpc.ServerCredentials | None:
    """Return what the server proves itself with; None: it is insecure, which only this machine may reach.

    Raises:
        ConfigError: a file can't be used, or the address can be reached from outside and there is no certificate.
    """
    host, _ = split(options.address)
    if options.certificate is None or options.key is None:
        if options.certificate or options.key or options.client_ca:
            raise ConfigError("--cert, --key and --client-ca: a certificate needs its key, a client CA needs both")
        if host not in LOOPBACK:
            wish = "say --address 127.0.0.1:PORT"
            raise ConfigError(f"{options.address}: only this machine may be served without a certificate; {wish}")
        return None
    files = (options.certificate, options.key, *((options.client_ca,) if options.client_ca else ()))
    try:
        key, certificate, *authority = (path.read_bytes() for path in (options.key, options.certificate, *files[2:]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # gRPC says nothing about files that don't fit; this does.
        context.load_cert_chain(options.certificate, options.key, password=lambda: "")
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
    except ssl.SSLError as error:
        names = ", ".join(map(str, files))
        raise ConfigError(f"{names}: no PEM certificate and its unencrypted key ({error.reason or error})") from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    root = authority[0] if authority else None
    return grpc.ssl_server_credentials([(key, certificate)], root, require_client_auth=root is not None)


async def serve(options: Options, listening: Callable[[int], None] = lambda port: None) -> None:
    """Serve until the process is told to end; calls that are being answered are answered.

    Args:
        options: how.
        listening: called with the port as soon as calls are answered.

    Raises:
        ConfigError: something about the options can't be used.
    """
    proof = credentials(options)
    if options.metrics is not None:
        split(options.metrics)
    _allow_many_connections()
    store, state = Store(options.store), State(options.state)
    state.begin(options.store)
    delivery = Delivery(store, state, mutual=options.client_ca is not None)
    try:
        await delivery.refresh()  # a store that can't be read ends the service now; later it is waited for
        if not delivery.catalogue.offers:
            _LOG.warning("the store holds no release yet", extra={"store": options.store})
        await _serve(options, proof, delivery, listening)
    finally:
        delivery.close()


async def _serve(
    options: Options, proof: grpc.ServerCredentials | None, delivery: Delivery, listening: Callable[[int], None]
) -> None:
    server = grpc.aio.server(options=_CHANNEL, maximum_concurrent_rpcs=MAX_CALLS)
    add_DeliveryServicer_to_server(delivery, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if proof is None:
            port = server.add_insecure_port(options.address)
        else:
            port = server.add_secure_port(options.address, proof)
    except RuntimeError as error:
        raise ConfigError(f"{options.address}: can't listen here; is the port in use?") from error
    stop = _stop_signal()
    with _metrics(options, delivery):
        await server.start()
        await _tell_health(healthy, True)
        _LOG.info("serving", extra={"port": port, "tls": proof is not None, "mutual": options.client_ca is not None})
        listening(port)
        watching = asyncio.create_task(_watch(delivery, healthy, options.refresh))
        try:
            await stop.wait()
        finally:
            watching.cancel()
            _LOG.info("ending", extra={"seconds": options.drain})
            await healthy.enter_graceful_shutdown()
            await server.stop(options.drain)


async def _watch(delivery: Delivery, healthy: health.aio.HealthServicer, seconds: float) -> None:
    """Look into the store again and again; while it can't be read, the health service says so."""
    well = True
    while True:
        await asyncio.sleep(seconds)
        try:
            await delivery.refresh()
            now = True
        except Exception as error:  # of whatever library reads the store: the next look may find it well
            now = False
            if well:
                _LOG.error("the store can't be read", extra={"reason": str(error)}, exc_info=True)
        if now != well:
            well = now
            await _tell_health(healthy, well)


async def _tell_health(healthy: health.aio.HealthServicer, well: bool) -> None:
    states = health_pb2.HealthCheckResponse
    for name in ("", NAME):
        await healthy.set(name, states.SERVING if well else states.NOT_SERVING)


def _stop_signal() -> asyncio.Event:
    """Return what is set by SIGTERM or Ctrl-C; a second one of them ends the process at once."""
    stop, loop, numbers = asyncio.Event(), asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)

    def end() -> None:
        stop.set()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: who started it there cancels it
        for number in numbers:
            loop.add_signal_handler(number, end)
    return stop


def _metrics(options: Options, delivery: Delivery) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    if options.metrics is not None:
        host, port = split(options.metrics)
        try:
            server, thread = start_http_server(port, host.strip("[]"), delivery.metrics.registry)
        except OSError as error:
            raise ConfigError(f"{options.metrics}: can't listen here: {error.strerror}") from error
        for last_first in (thread.join, server.server_close, server.shutdown):
            stack.callback(last_first)
    return stack


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
